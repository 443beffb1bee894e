import { NearstreamError } from "./errors.js";

/** One server-sent event. */
export interface ServerEvent {
  readonly event: string;
  readonly data: string;
}

const EVENT_CHARS_MAX = 4 * 1024 * 1024;

/**
 * Turns text, cut anywhere, into events; lines end with LF or CRLF. Comments and unknown fields are passed over. Holds at
 * most EVENT_CHARS_MAX characters and one chunk: throws `unreadable-answer` for an event beyond.
 */
export class EventDecoder {
  #rest = "";
  #event = "";
  #data: string[] = [];
  #chars = 0;

  /** The events that this chunk completes. */
  *feed(chunk: string): Generator<ServerEvent> {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (event !== undefined) yield event;
    }
    this.#check(this.#rest.length);
  }

  #line(line: string): ServerEvent | undefined {
    if (line === "") return this.#ended();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    if (name === "data") {
      this.#chars += value.length;
      this.#check(0);
      this.#data.push(value);
    }
    return undefined;
  }

  #check(more: number): void {
    if (this.#chars + more > EVENT_CHARS_MAX) {
      const expected = `Expected at most ${EVENT_CHARS_MAX} characters in one pushed event, got more.`;
      throw new NearstreamError("unreadable-answer", expected);
    }
  }

  #ended(): ServerEvent | undefined {
    const event = { event: this.#event || "message", data: this.#data.join("\n") };
    const isEmpty = this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    this.#chars = 0;
    return isEmpty ? undefined : event;
  }
}
