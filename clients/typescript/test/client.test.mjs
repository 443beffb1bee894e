// Against a small server of its own; `npm test` builds first.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { NearstreamClient, NearstreamError, RETRY } from "../dist/index.js";
import { EventDecoder } from "../dist/sse.js";

const LIST = { rec_id: "r1", user_id: "ada", items: [{ item_id: "blue-shoes", score: 0.8, reasons: [] }], neighbours: [] };
const EVENT = { user_id: "ada", item_id: "red-shoes", type: "view", timestamp: 1700000000000 };
const pushed = (list) => `event: list\ndata: ${JSON.stringify(list)}\n\n`;

/** A server that answers with `answers`, one a request, the last one again and again; closed at the test's end. */
async function serve(t, ...answers) {
  const asked = [];
  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      const { method, url, headers } = request;
      asked.push({ method, url, headers, body: text === "" ? undefined : JSON.parse(text) });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      answer(response);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { asked, url: `http://127.0.0.1:${server.address().port}` };
}

const json = (body, status = 200, headers = {}) => (response) => {
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(body));
};

const silent = () => {};

const stream = (text, isOpen = false) => (response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(text);
  if (!isOpen) response.end();
};

function client(url, options = {}) {
  const waits = [];
  const sleep = async (ms) => void waits.push(ms);
  const made = new NearstreamClient(url, { sleep, chance: () => 1, newEventId: () => "e1", ...options });
  return { nearstream: made, waits };
}

test("reads come back as the server sent them", async (t) => {
  const { url, asked } = await serve(t, json(LIST), json({ neighbours: [{ user_id: "u9", similarity: 0.9 }] }));
  const { nearstream } = client(`${url}/`, { token: "secret" });
  assert.deepEqual(await nearstream.list("a/b?ü"), LIST);
  assert.equal(asked[0].url, "/v1/users/a%2Fb%3F%C3%BC/list");
  assert.equal(asked[0].headers.authorization, "Bearer secret");
  assert.deepEqual(await nearstream.neighbours("ada"), [{ user_id: "u9", similarity: 0.9 }]);
});

test("profile, explanation, many and forget ask at the right places", async (t) => {
  const { url, asked } = await serve(t, json({ users: { ada: { list: LIST }, nobody: null } }));
  const { nearstream } = client(url);
  await nearstream.profile("ada");
  await nearstream.explain("ada", "x&y=1");
  await nearstream.forget("ada");
  const users = await nearstream.many(["ada", "nobody"], ["list"]);
  assert.deepEqual(users, { ada: { list: LIST }, nobody: null });
  assert.deepEqual(
    asked.map(({ method, url: path }) => `${method} ${path}`),
    ["GET /v1/users/ada/profile", "GET /v1/users/ada/explain?item_id=x%26y%3D1", "DELETE /v1/users/ada", "POST /v1/users"],
  );
  assert.deepEqual(asked[3].body, { user_ids: ["ada", "nobody"], parts: ["list"] });
  assert.equal(asked[2].headers["x-nearstream"], "1");
});

test("what if is asked as it is, and a question that is too long is not", async (t) => {
  const found = { user_id: "ada", entered: ["hat"], left: [], moved: [] };
  const { url, asked } = await serve(t, json(found));
  const { nearstream } = client(url);
  const events = [{ type: "view", item_id: "hat" }];
  assert.deepEqual(await nearstream.whatIf("ada", { without: ["red-shoes"], events }), found);
  assert.deepEqual(await nearstream.whatIf("ada", {}), found);
  assert.equal(`${asked[0].method} ${asked[0].url}`, "POST /v1/users/ada/what-if");
  assert.deepEqual(asked.map(({ body }) => body), [{ without: ["red-shoes"], events }, { without: [], events: [] }]);
  await assert.rejects(nearstream.whatIf("ada", { without: Array(33).fill("i") }), RangeError);
  await assert.rejects(nearstream.whatIf("ada", { events: Array(9).fill(events[0]) }), RangeError);
  assert.equal(asked.length, 2);
});

test("events get an id, and keep it when they are sent again", async (t) => {
  const { url, asked } = await serve(t, json({}, 503), json({ accepted: 2, events: [] }, 202));
  const { nearstream, waits } = client(url);
  assert.equal((await nearstream.sendEvents([EVENT, { ...EVENT, event_id: "mine" }])).accepted, 2);
  assert.deepEqual(asked.map(({ body }) => body.map((event) => event.event_id)), [["e1", "mine"], ["e1", "mine"]]);
  assert.equal(asked[0].headers["content-type"], "application/json");
  assert.deepEqual(waits, [250]);
});

test("what no server could take is refused before it is sent", async (t) => {
  const { url, asked } = await serve(t, json(LIST));
  const { nearstream } = client(url);
  assert.throws(() => nearstream.list(".."), /that a URL can carry, got "\.\."/);
  await assert.rejects(nearstream.sendEvents([]), /1 to 100 events in one call, got 0/);
  await assert.rejects(nearstream.many(Array(101).fill("ada")), /1 to 100 users in one call, got 101/);
  assert.deepEqual(asked, []);
});

for (const [status, kind] of [
  [400, "bad-request"],
  [401, "not-allowed"],
  [403, "not-allowed"],
  [404, "not-found"],
  [409, "conflict"],
  [413, "bad-request"],
  [500, "server-fault"],
]) {
  test(`${status} is thrown at once as ${kind}, with the server's sentence`, async (t) => {
    const { url } = await serve(t, json({ error: "Expected this.", index: 1, reason: "unknown-type" }, status));
    const { nearstream, waits } = client(url);
    await assert.rejects(nearstream.list("ada"), (error) => {
      assert.ok(error instanceof NearstreamError);
      const { message, index, reason } = error;
      assert.deepEqual([error.kind, error.status, message], [kind, status, "Expected this."]);
      assert.deepEqual([index, reason], [1, "unknown-type"]);
      return true;
    });
    assert.deepEqual(waits, []);
  });
}

test("an answer that is not JSON is an error with words", async (t) => {
  const html = (status) => (response) => response.writeHead(status).end("<html>");
  const { url } = await serve(t, html(502), html(200));
  const { nearstream } = client(url);
  await assert.rejects(nearstream.list("ada"), /answered 502 Bad Gateway without a reason/);
  await assert.rejects(nearstream.list("ada"), { kind: "unreadable-answer" });
});

for (const status of [429, 503]) {
  test(`${status} is sent again, a bounded number of times, with waits that double`, async (t) => {
    const { url, asked } = await serve(t, json({ error: "Later." }, status));
    const { nearstream, waits } = client(url);
    await assert.rejects(nearstream.list("ada"), /Later\./);
    assert.deepEqual(waits, [250, 500, 1000]);
    assert.equal(asked.length, RETRY.attemptsMax);
  });
}

test("Retry-After is honoured, unless it is too long", async (t) => {
  const refused = (seconds) => json({ error: "Later." }, 429, { "Retry-After": seconds });
  const { url } = await serve(t, refused("7"), json(LIST), refused("3600"));
  const { nearstream, waits } = client(url);
  await nearstream.list("ada");
  await assert.rejects(nearstream.list("ada"), { kind: "too-many-requests", retryAfterMs: 3_600_000 });
  assert.deepEqual(waits, [7000]);
});

test("silence and a closed door are unreachable", async (t) => {
  const { url } = await serve(t, silent);
  await assert.rejects(client(url, { timeoutMs: 30 }).nearstream.list("ada"), {
    kind: "unreachable",
    message: /nothing came within 30 ms/,
  });
  const closed = client("http://x", { fetch: () => Promise.reject(new TypeError("fetch failed")) });
  await assert.rejects(closed.nearstream.list("ada"), { kind: "unreachable", message: /fetch failed/ });
});

test("a stream gives each list once, over broken connections too", async (t) => {
  const [first, second, third] = ["r1", "r2", "r3"].map((rec_id) => ({ ...LIST, rec_id }));
  const { url, asked } = await serve(
    t,
    stream(`: keep-alive\n\nevent: gone\ndata: {}\n\n${pushed(first)}`),
    stream(pushed(first) + pushed(second)),
    stream(pushed(third), true),
  );
  const { nearstream, waits } = client(url);
  const seen = [];
  for await (const list of nearstream.stream("ada")) {
    seen.push(list.rec_id);
    if (seen.length === 3) break;
  }
  assert.deepEqual(seen, ["r1", "r2", "r3"]);
  assert.deepEqual(waits, [250, 250]);
  assert.equal(asked[0].headers.accept, "text/event-stream");
});

test("a stream that only ever breaks is given up, and one that is refused ends at once", async (t) => {
  const broken = await serve(t, stream(": nothing\n\n"));
  const { nearstream, waits } = client(broken.url);
  await assert.rejects(nearstream.stream("ada").next(), /The server ended the stream/);
  assert.deepEqual(waits, [250, 500, 1000]);
  const refused = await serve(t, json({ error: "Read tokens only." }, 403));
  await assert.rejects(client(refused.url).nearstream.stream("ada").next(), /Read tokens only/);
});

test("a stream ends without an error when its signal aborts", async (t) => {
  const { url } = await serve(t, stream(pushed(LIST), true));
  const abort = new AbortController();
  const lists = client(url).nearstream.stream("ada", abort.signal);
  assert.equal((await lists.next()).value.rec_id, "r1");
  const end = lists.next();
  abort.abort();
  assert.equal((await end).done, true);
});

for (const size of [1, 2, 7, 1000]) {
  test(`events cut every ${size} characters are the same events`, () => {
    const text = "event: list\r\ndata: é\u2028ü\r\ndata:two\n\n: comment\n\ndata: three\n\nid: 4\n\n";
    const decoder = new EventDecoder();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...decoder.feed(text.slice(at, at + size)));
    assert.deepEqual(events, [
      { event: "list", data: "é\u2028ü\ntwo" },
      { event: "message", data: "three" },
    ]);
  });
}

test("an endless event is given up instead of filling the memory", () => {
  const decoder = new EventDecoder();
  const quarter = `data: ${"x".repeat(2 ** 20)}\n`;
  const feed = () => [...decoder.feed(quarter)];
  for (let n = 0; n < 4; n += 1) assert.deepEqual(feed(), []);
  assert.throws(feed, { kind: "unreadable-answer" });
});
