// Asks the server. Whatever goes wrong becomes an Error whose message is a sentence for the reader.

const WRITE = { "Content-Type": "application/json", "X-Nearstream": "1" };

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function ask(path, { method = "GET", body } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: method === "GET" ? {} : WRITE,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new Refused(0, "The page's server does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  throw new Refused(response.status, sentence(response, answer), response.headers.get("Retry-After"));
}

function sentence(response, answer) {
  const refused = answer?.refused?.[0];
  if (refused) return `Not sent: it would be a dead letter again (${refused.reason}: ${refused.message})`;
  if (answer?.error) return answer.reason && !answer.error.includes(answer.reason) ? `${answer.error} (${answer.reason})` : answer.error;
  if (response.status === 401) return "Sign in first: this server asks for a token.";
  if (response.status === 404) return "This server does not offer that.";
  return `The server answered ${response.status} ${response.statusText}.`;
}

export const sendEvent = (event) => ask("/v1/events", { method: "POST", body: event });
export const forget = (userId) => ask(`/v1/users/${encodeURIComponent(userId)}`, { method: "DELETE" });
export const deadLetters = (reason, limit) =>
  ask(`/v1/dead-letters?limit=${limit}${reason ? `&reason=${encodeURIComponent(reason)}` : ""}`);
export const replay = (ids, value) =>
  ask("/v1/dead-letters/replay", { method: "POST", body: value === undefined ? { ids } : { ids, value } });
export const remembered = (userId) => ask(`/api/what-if?user=${encodeURIComponent(userId)}`);
export const whatIf = (question) => ask("/api/what-if", { method: "POST", body: question });
