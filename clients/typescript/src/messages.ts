// What the API sends and takes. Times are epoch ms; similarities, scores and shares have no unit.
// Objects come as the server sent them: fields that a newer server adds are there, only without a type.

/** Why an item is in a list. `share` is its part of the score, 0 to 1; which other fields are there depends on `kind`. */
export interface Reason {
  readonly kind: string;
  readonly share: number;
  readonly users?: readonly string[];
  readonly item_id?: string;
  readonly category?: string;
  readonly group?: string;
}

/** Why an item is in the newest list, `rec_id`; `rank` counts from 1. */
export interface Explanation {
  readonly user_id: string;
  readonly rec_id: string;
  readonly generated_at: number;
  readonly item_id: string;
  readonly rank: number;
  readonly score: number;
  /** Each as published, with a sentence; null for a kind that the server does not know. */
  readonly reasons: readonly {
    readonly kind: string;
    readonly share: number;
    readonly sentence: string | null;
    readonly message: Reason;
  }[];
}

/** A recommended item with at least one reason. */
export interface Item {
  readonly item_id: string;
  readonly score: number;
  readonly reasons: readonly Reason[];
}

/** A user nearby; `similarity` is the cosine. */
export interface Neighbour {
  readonly user_id: string;
  readonly similarity: number;
}

/** A user's newest list, as published; items and neighbours are best first. */
export interface RecommendationList {
  readonly rec_id: string;
  readonly user_id: string;
  readonly generated_at: number;
  readonly cause: string;
  /** The last event that the list reflects. */
  readonly source: {
    readonly topic: string;
    readonly partition: number;
    readonly offset: number;
    readonly event_time: number;
  };
  /** `events` counts the accepted events of the user since the first. */
  readonly profile: { readonly events: number; readonly version: number; readonly model: string };
  readonly index: { readonly epoch: number; readonly users: number };
  readonly neighbours: readonly Neighbour[];
  readonly items: readonly Item[];
  /** Why there are fewer items than asked for; missing where there are as many. */
  readonly short_because?: string;
}

/** A list that was not published; `short_because` as in a RecommendationList. */
export interface SupposedList {
  readonly neighbours: readonly Neighbour[];
  readonly items: readonly Item[];
  readonly short_because?: string;
}

/** An event that did not happen; `timestamp` is now when left out. */
export interface SupposedEvent {
  readonly item_id: string;
  readonly type: string;
  readonly value?: number;
  readonly timestamp?: number;
}

/**
 * The list as it would be, `then`, beside the list `now`, both made in the same way; where something is left out, both
 * from the remembered events alone. `left_out` counts the remembered events that are left out, `added` those that are
 * supposed; `profile_cosine` is that of the two profile vectors, null where one of them has no direction.
 */
export interface WhatIf {
  readonly user_id: string;
  readonly answered_at: number;
  readonly model: string;
  readonly profile_events: number;
  readonly left_out: number;
  readonly added: number;
  readonly profile_cosine: number | null;
  readonly now: SupposedList;
  readonly then: SupposedList;
  readonly entered: readonly string[];
  readonly left: readonly string[];
  /** Ranks count from 1. */
  readonly moved: readonly { readonly item_id: string; readonly from_rank: number; readonly to_rank: number }[];
}

/** A user's profile. `vector` has unit length, or is all zeros; `recent_items` are oldest first. */
export interface Profile {
  readonly user_id: string;
  readonly events: number;
  readonly version: number;
  readonly model: string;
  readonly last_event_time: number;
  readonly recent_items: readonly { readonly item_id: string; readonly type: string | null; readonly timestamp: number }[];
  readonly vector: readonly number[];
}

/** What can be asked of many users at once. */
export type Part = "list" | "profile" | "neighbours";

/** What was asked of one of many users; a part is missing where it was not asked for or is not there. */
export interface UserParts {
  readonly list?: RecommendationList | null;
  readonly profile?: Profile | null;
  readonly neighbours?: readonly Neighbour[] | null;
}

/** An event as the topic `events` takes it. */
export interface Event {
  readonly event_id?: string;
  readonly user_id: string;
  readonly item_id: string;
  readonly type: string;
  /** Epoch ms, or RFC 3339. */
  readonly timestamp: number | string;
  readonly value?: number;
  readonly rec_id?: string;
  readonly session_id?: string;
  readonly properties?: Readonly<Record<string, unknown>>;
}

/** All events are in Kafka, acknowledged by every replica in sync; `events` says where, in the order sent. */
export interface Accepted {
  readonly accepted: number;
  readonly events: readonly { readonly partition: number; readonly offset: number }[];
}

/** The tombstone that makes the workers forget the user; from `deadline` on no saved file holds the user any more. */
export interface ForgetReceipt {
  readonly user_id: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly requested_at: number;
  readonly deadline: number;
}
