import { errorOf, NearstreamError } from "./errors.js";
import type {
  Accepted,
  Event,
  Explanation,
  ForgetReceipt,
  Neighbour,
  Part,
  Profile,
  RecommendationList,
  SupposedEvent,
  UserParts,
  WhatIf,
} from "./messages.js";
import { RETRY, waitMs, type Retry } from "./retry.js";
import { EventDecoder, type ServerEvent } from "./sse.js";

export interface ClientOptions {
  readonly token?: string;
  /** How long one attempt may take, and how long a stream may take to answer. */
  readonly timeoutMs?: number;
  readonly retry?: Partial<Retry>;
  /** These four are for tests and for places without the usual globals. */
  readonly fetch?: typeof fetch;
  readonly sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly chance?: () => number;
  readonly newEventId?: () => string;
}

interface Call {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
}

const AT_ONCE_MAX = 100;
const LEFT_OUT_MAX = 32;
const SUPPOSED_MAX = 8;
/** A stream without even a keep-alive for so long is opened anew. */
const STREAM_SILENCE_MS_MAX = 60_000;

/**
 * Calls the API at `baseUrl` with `fetch`, in browsers and in Node. Every method rejects with a NearstreamError, and with
 * a RangeError for arguments that no server could take. 429 and 503 are sent again: each call is a read, or has the same
 * effect once as twice.
 */
export class NearstreamClient {
  readonly #baseUrl: string;
  readonly #token: string | undefined;
  readonly #timeoutMs: number;
  readonly #retry: Retry;
  readonly #fetch: typeof fetch;
  readonly #sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly #chance: () => number;
  readonly #newEventId: () => string;

  constructor(baseUrl: string, options: ClientOptions = {}) {
    this.#baseUrl = baseUrl.replace(/\/+$/, "");
    this.#token = options.token;
    this.#timeoutMs = options.timeoutMs ?? 5000;
    this.#retry = { ...RETRY, ...options.retry };
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.#sleep = options.sleep ?? sleep;
    this.#chance = options.chance ?? Math.random;
    this.#newEventId = options.newEventId ?? (() => crypto.randomUUID());
  }

  /** The user's newest list. */
  list(userId: string): Promise<RecommendationList> {
    return this.#send({ method: "GET", path: `${userPath(userId)}/list` });
  }

  /** The user's profile with its vector. */
  profile(userId: string): Promise<Profile> {
    return this.#send({ method: "GET", path: `${userPath(userId)}/profile` });
  }

  /** The nearest users in the newest list, best first. */
  async neighbours(userId: string): Promise<readonly Neighbour[]> {
    const path = `${userPath(userId)}/neighbours`;
    return (await this.#send<{ neighbours: readonly Neighbour[] }>({ method: "GET", path })).neighbours;
  }

  /** Why the item is in the user's newest list; `not-found` where it is not. */
  explain(userId: string, itemId: string): Promise<Explanation> {
    return this.#send({ method: "GET", path: `${userPath(userId)}/explain?item_id=${encodeURIComponent(itemId)}` });
  }

  /**
   * What the list would be without up to 32 items of the history and after up to 8 events. A worker answers; nothing is
   * sent and nothing changes. `not-found` where there is no profile, `bad-request` for an item that is unknown or not
   * remembered.
   */
  async whatIf(
    userId: string,
    { without = [], events = [] }: { without?: readonly string[]; events?: readonly SupposedEvent[] },
  ): Promise<WhatIf> {
    if (without.length > LEFT_OUT_MAX || events.length > SUPPOSED_MAX) {
      throw new RangeError(
        `Expected at most ${LEFT_OUT_MAX} items to leave out and ${SUPPOSED_MAX} events, got ${without.length} and ` +
          `${events.length}; ask for fewer.`,
      );
    }
    return this.#send({ method: "POST", path: `${userPath(userId)}/what-if`, body: { without, events } });
  }

  /** Parts of up to 100 users by id; null for users that are unknown. */
  async many(
    userIds: readonly string[],
    parts: readonly Part[] = ["list"],
  ): Promise<Readonly<Record<string, UserParts | null>>> {
    checkCount(userIds.length, "users");
    const body = { user_ids: userIds, parts };
    return (await this.#send<{ users: Record<string, UserParts | null> }>({ method: "POST", path: "/v1/users", body }))
      .users;
  }

  /**
   * Up to 100 events into Kafka; resolves when they are acknowledged. An event without `event_id` gets one, so that a
   * second attempt cannot count twice. `bad-request` names the event that is wrong: then none was sent.
   */
  async sendEvents(events: readonly Event[]): Promise<Accepted> {
    checkCount(events.length, "events");
    const body = events.map((event) => ({ event_id: this.#newEventId(), ...event }));
    return this.#send({ method: "POST", path: "/v1/events", body });
  }

  /** Forget the user: profile, list and vector, by the receipt's deadline. */
  forget(userId: string): Promise<ForgetReceipt> {
    return this.#send({ method: "DELETE", path: userPath(userId) });
  }

  /**
   * The newest list at once and every new one, until `signal` aborts or the loop is left. A broken connection is opened
   * again; its error is thrown after `retry.attemptsMax` connections that brought nothing.
   */
  async *stream(userId: string, signal?: AbortSignal): AsyncGenerator<RecommendationList, void, undefined> {
    const path = `${userPath(userId)}/stream`;
    let attempt = 0;
    let lastRecId: string | undefined;
    while (!signal?.aborted) {
      try {
        for await (const event of this.#oneConnection(path, signal)) {
          attempt = 0;
          if (event.event !== "list") continue; // such as `gone`: there is none
          const list = parsed<RecommendationList>(event.data, path);
          if (list.rec_id === lastRecId) continue;
          lastRecId = list.rec_id;
          yield list;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!(error instanceof NearstreamError)) throw error;
        attempt += 1;
        const pauseMs = waitMs(this.#retry, error, attempt, this.#chance, true);
        if (pauseMs === undefined) throw error;
        await this.#sleep(pauseMs, signal);
      }
    }
  }

  async *#oneConnection(path: string, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
    const watch = new Watch(signal);
    try {
      watch.expectWithin(this.#timeoutMs);
      const response = await this.#request({ method: "GET", path }, watch.signal, "text/event-stream");
      if (!response.ok) throw await errorOf(response);
      const decoder = new EventDecoder();
      for await (const text of textOf(response)) {
        watch.expectWithin(STREAM_SILENCE_MS_MAX);
        yield* decoder.feed(text);
      }
    } finally {
      watch.end();
    }
    throw new NearstreamError("unreachable", "The server ended the stream.");
  }

  async #send<T>(call: Call): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#once<T>(call);
      } catch (error) {
        if (!(error instanceof NearstreamError)) throw error;
        const pauseMs = waitMs(this.#retry, error, attempt, this.#chance);
        if (pauseMs === undefined) throw error;
        await this.#sleep(pauseMs);
      }
    }
  }

  async #once<T>(call: Call): Promise<T> {
    const watch = new Watch();
    try {
      watch.expectWithin(this.#timeoutMs);
      const response = await this.#request(call, watch.signal, "application/json");
      if (!response.ok) throw await errorOf(response);
      return parsed<T>(await response.text(), call.path);
    } catch (error) {
      throw error instanceof NearstreamError ? error : unreachable(error);
    } finally {
      watch.end();
    }
  }

  async #request(call: Call, signal: AbortSignal, accept: string): Promise<Response> {
    const headers: Record<string, string> = { Accept: accept };
    if (this.#token !== undefined) headers["Authorization"] = `Bearer ${this.#token}`;
    if (call.method !== "GET") headers["X-Nearstream"] = "1"; // shows the server that this is no foreign page's form
    if (call.body !== undefined) headers["Content-Type"] = "application/json";
    const body = call.body === undefined ? {} : { body: JSON.stringify(call.body) };
    try {
      return await this.#fetch(this.#baseUrl + call.path, { method: call.method, headers, signal, ...body });
    } catch (error) {
      throw unreachable(error);
    }
  }
}

/** Aborts its signal when what is expected does not come in time, or when another signal does. */
class Watch {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #onOuter = (): void => this.#controller.abort(this.#outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer?: AbortSignal) {
    this.#outer = outer;
    outer?.addEventListener("abort", this.#onOuter);
    if (outer?.aborted) this.#onOuter();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  expectWithin(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(new Error(`nothing came within ${ms} ms`)), ms);
  }

  /** Also closes a connection that is still open. */
  end(): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#onOuter);
    this.#controller.abort(new Error("the call is over"));
  }
}

async function* textOf(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw unreachable(error);
  }
}

function parsed<T>(text: string, path: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new NearstreamError("unreadable-answer", `Expected JSON from ${path}, got something else.`, { cause });
  }
}

function unreachable(cause: unknown): NearstreamError {
  const words = cause instanceof Error ? cause.message : String(cause);
  return new NearstreamError("unreachable", `No answer from the server: ${words}.`, { cause });
}

function userPath(userId: string): string {
  if (userId === "" || userId === "." || userId === "..") {
    throw new RangeError(`Expected a user id that a URL can carry, got "${userId}"; ask for it with many().`);
  }
  return `/v1/users/${encodeURIComponent(userId)}`;
}

function checkCount(count: number, what: string): void {
  if (count < 1 || count > AT_ONCE_MAX) {
    throw new RangeError(`Expected 1 to ${AT_ONCE_MAX} ${what} in one call, got ${count}; split them.`);
  }
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}
