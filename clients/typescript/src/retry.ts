import type { NearstreamError } from "./errors.js";

/** When a refused call is sent again. */
export interface Retry {
  /** A call is sent at most so often. */
  readonly attemptsMax: number;
  /** The first wait; waits double up to `backoffMsMax`, each cut by chance to between a half and the whole. */
  readonly backoffMs: number;
  readonly backoffMsMax: number;
  /** Where the server asks to wait longer than this, the error is thrown at once. */
  readonly retryAfterMsMax: number;
}

export const RETRY: Retry = { attemptsMax: 4, backoffMs: 250, backoffMsMax: 8000, retryAfterMsMax: 60000 };

/** Milliseconds to wait after attempt number `attempt` (from 1) failed; undefined when it was the last. */
export function waitMs(
  retry: Retry,
  error: NearstreamError,
  attempt: number,
  chance: () => number,
  isStream = false,
): number | undefined {
  const isRefused = error.kind === "too-many-requests" || error.kind === "not-ready";
  const isBroken = isStream && error.kind === "unreachable";
  if (!(isRefused || isBroken) || attempt >= retry.attemptsMax) return undefined;
  if (error.retryAfterMs !== undefined) {
    return error.retryAfterMs <= retry.retryAfterMsMax ? error.retryAfterMs : undefined;
  }
  return Math.min(retry.backoffMsMax, retry.backoffMs * 2 ** (attempt - 1)) * (0.5 + 0.5 * chance());
}
