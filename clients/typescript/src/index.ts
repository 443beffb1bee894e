/** A thin client of Nearstream's HTTP API, without dependencies: fetch in, typed objects out. */
export { NearstreamClient, type ClientOptions } from "./client.js";
export { NearstreamError, type ErrorKind } from "./errors.js";
export type {
  Accepted,
  Event,
  Explanation,
  ForgetReceipt,
  Item,
  Neighbour,
  Part,
  Profile,
  Reason,
  RecommendationList,
  SupposedEvent,
  SupposedList,
  UserParts,
  WhatIf,
} from "./messages.js";
export { RETRY, type Retry } from "./retry.js";
