// Draws one user: events beside the list, its reasons as sentences, and the neighbours.

import { byId, el, keyed, setText, show } from "./dom.js";
import { count, moment, share, similarity } from "./format.js";

const CAUSE = {
  event: "after an event", neighbour: "because a neighbour moved", model: "after a new model", command: "on request",
};

export function drawLookupStarted(userId) {
  setText(byId("person-id"), userId);
  setText(byId("person-facts"), "");
  setText(byId("person-message"), "Loading…");
  show(byId("person-message"), true);
  for (const id of ["person-events", "person-items", "person-neighbours"]) byId(id).replaceChildren();
  show(byId("person"), true);
}

export function drawPerson(person) {
  setText(byId("person-id"), person.user_id);
  setText(byId("person-facts"), facts(person));
  setText(byId("person-message"), person.message);
  show(byId("person-message"), person.message !== "");
  drawEvents(person);
  drawItems(person);
  drawNeighbours(person);
}

function facts({ list, now }) {
  if (!list) return "";
  return [
    `list of ${moment(list.generated_at, now)}, ${CAUSE[list.cause] ?? list.cause}`,
    `${count(list.profile_events)} events in the profile`,
    `source ${list.source_partition}:${list.source_offset}`,
    list.model,
  ].join(" · ");
}

function drawEvents({ events, now }) {
  keyed(byId("person-events"), events, (e) => `${e.partition}:${e.offset}`, (e) => eventLine(e, now), () => {});
  emptyNote(byId("person-events"), events, "No events in reach.");
}

function eventLine(e, now) {
  const what = e.type === null ? "unreadable" : e.type;
  return el("li", {},
    el("span", { class: "chip", "data-type": what }, what),
    el("span", { class: "grow" }, e.title ?? e.item_id ?? "not an event",
      ...(e.value === null ? [] : [el("span", { class: "quiet" }, ` ${e.value}`)])),
    el("time", { class: "quiet" }, moment(e.timestamp ?? e.received_at, now)));
}

function drawItems({ list }) {
  const items = list?.items ?? [];
  keyed(byId("person-items"), items, (i) => JSON.stringify(i), itemLine, () => {});
  emptyNote(byId("person-items"), items, "No list.");
}

function itemLine(item) {
  return el("li", {},
    el("div", { class: "item-head" },
      el("span", { class: "grow" }, item.title ?? item.item_id),
      el("span", { class: "quiet number" }, item.score.toFixed(3))),
    ...(item.title ? [el("span", { class: "quiet block" }, item.item_id)] : []),
    el("ul", { class: "reasons" }, ...item.reasons.map(reasonLine)));
}

function reasonLine(reason) {
  const bar = el("i");
  bar.style.width = share(reason.share);
  return el("li", { "data-kind": reason.kind },
    el("span", { class: "grow" }, reason.text),
    el("span", { class: "reason-bar", "aria-hidden": "true" }, bar),
    el("span", { class: "quiet number" }, share(reason.share)));
}

function drawNeighbours({ list }) {
  const neighbours = list?.neighbours ?? [];
  keyed(byId("person-neighbours"), neighbours, (n) => n.user_id, neighbourLine, (li, n) => {
    setText(li.lastChild, similarity(n.similarity));
  });
  emptyNote(byId("person-neighbours"), neighbours, "Nobody near yet.");
}

function neighbourLine(n) {
  const link = el("a", { href: `?user=${encodeURIComponent(n.user_id)}`, "data-user": n.user_id }, n.user_id);
  return el("li", {}, link, el("span", { class: "number" }));
}

function emptyNote(parent, items, text) {
  if (items.length === 0) parent.replaceChildren(el("li", { class: "empty", "data-key": "empty" }, text));
}
