/** What went wrong, in one word. */
export type ErrorKind =
  | "bad-request" // 400, 413: mend the request; `index` and `reason` name the event that was refused
  | "not-allowed" // 401, 403: the token is missing, wrong, or has no right to write
  | "not-found" // 404: this user, or this item in the list, is unknown
  | "conflict" // 409
  | "too-many-requests" // 429, still after the last attempt
  | "not-ready" // 503, still after the last attempt
  | "server-fault" // any other status
  | "unreachable" // no connection, or no answer in time
  | "unreadable-answer"; // not what this version of the client expects

const KIND_OF_STATUS: Readonly<Record<number, ErrorKind>> = {
  400: "bad-request",
  401: "not-allowed",
  403: "not-allowed",
  404: "not-found",
  409: "conflict",
  413: "bad-request",
  429: "too-many-requests",
  503: "not-ready",
};

interface Details {
  readonly status?: number;
  readonly index?: number;
  readonly reason?: string;
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

/** Every error of this client. The message is a sentence, the server's own where it sent one. */
export class NearstreamError extends Error {
  override readonly name = "NearstreamError";
  readonly status: number | undefined;
  readonly index: number | undefined;
  readonly reason: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly kind: ErrorKind,
    message: string,
    details: Details = {},
  ) {
    super(message, { cause: details.cause });
    this.status = details.status;
    this.index = details.index;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** The error that an answer stands for; reads its body. */
export async function errorOf(response: Response): Promise<NearstreamError> {
  const problem = await problemOf(response);
  const sentence = typeof problem["error"] === "string" ? problem["error"] : undefined;
  return new NearstreamError(
    KIND_OF_STATUS[response.status] ?? "server-fault",
    sentence ?? `The server answered ${response.status} ${response.statusText} without a reason.`,
    {
      status: response.status,
      ...(typeof problem["index"] === "number" ? { index: problem["index"] } : {}),
      ...(typeof problem["reason"] === "string" ? { reason: problem["reason"] } : {}),
      ...retryAfter(response),
    },
  );
}

async function problemOf(response: Response): Promise<Record<string, unknown>> {
  const text = await response.text();
  try {
    const problem: unknown = JSON.parse(text);
    return typeof problem === "object" && problem !== null ? { ...problem } : {};
  } catch {
    return {}; // a proxy's page, not the server's JSON: the status alone speaks
  }
}

function retryAfter(response: Response): { retryAfterMs?: number } {
  const said = response.headers.get("Retry-After")?.trim() ?? "";
  return /^\d+$/.test(said) ? { retryAfterMs: Number(said) * 1000 } : {};
}
