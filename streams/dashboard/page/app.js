// Listens to the server's events and draws them; looks up a user by the form, a link or the address.

import { byId, el, setText, show } from "./dom.js";
import { duration, moment } from "./format.js";
import { drawOverview } from "./overview.js";
import { drawLookupStarted, drawPerson } from "./person.js";

const RETRY_MS = 2000;
const STALE_MS = 5000;

let source = null;
let retry = null;
let user = null;
let lastFrame = null;
let lastFrameAt = null;
let lost = false;

function listen() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource(user === null ? "/api/stream" : `/api/stream?user=${encodeURIComponent(user)}`);
  source.addEventListener("overview", (event) => {
    lost = false;
    lastFrame = JSON.parse(event.data);
    lastFrameAt = performance.now();
    drawOverview(lastFrame);
    drawNotice();
  });
  source.addEventListener("user", (event) => {
    const person = JSON.parse(event.data);
    if (person.user_id === user) drawPerson(person);
  });
  source.addEventListener("error", () => {
    lost = true;
    drawNotice();
    source.close();
    clearTimeout(retry);
    retry = setTimeout(listen, RETRY_MS);
  });
}

function drawNotice() {
  const silentMs = lastFrameAt === null ? 0 : performance.now() - lastFrameAt;
  const away = lost || silentMs > STALE_MS;
  const content = away ? lostNotice(silentMs) : kafkaNotice(lastFrame);
  const notice = byId("notice");
  if (content) notice.replaceChildren(...content);
  show(notice, Boolean(content));
  document.body.classList.toggle("stale", away || lastFrame?.connection.state === "unreachable");
}

function lostNotice(silentMs) {
  if (lastFrameAt === null) return [el("b", {}, "The page's server does not answer. "), "Trying again every two seconds."];
  return [
    el("b", {}, "Connection to the page's server lost. "),
    `The figures are ${duration(Math.round(silentMs / 1000))} old; trying again every two seconds.`,
  ];
}

function kafkaNotice(frame) {
  if (frame === null) return null;
  const { connection, now } = frame;
  switch (connection.state) {
    case "connecting":
      return [`Connecting to Kafka at ${connection.bootstrap}…`];
    case "unreachable":
      return [
        el("b", {}, `Kafka unreachable since ${moment(connection.since, now)}`),
        ` (${duration(Math.round((now - connection.since) / 1000))}) at ${connection.bootstrap}. `,
        "Figures below are the last known; the page goes on by itself once Kafka answers. ",
        el("span", { class: "quiet" }, connection.error ?? ""),
      ];
    case "no-topics":
      return [
        el("b", {}, "Topics are missing: "), `${connection.missing_topics.join(", ")}. Create them with `,
        el("code", {}, "nearstream topics create"), ".",
      ];
    default:
      return null;
  }
}

function watch(userId) {
  user = userId;
  byId("user-id").value = userId ?? "";
  if (userId === null) show(byId("person"), false);
  else drawLookupStarted(userId);
  listen();
}

function go(userId) {
  const address = userId === null ? "/" : `/?user=${encodeURIComponent(userId)}`;
  history.pushState(null, "", address);
  watch(userId);
}

function userInAddress() {
  return new URLSearchParams(location.search).get("user") || null;
}

byId("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = byId("user-id").value.trim();
  go(wanted === "" ? null : wanted);
});
byId("person-close").addEventListener("click", () => {
  go(null);
  byId("user-id").focus();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-user]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.dataset.user);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea")) return;
  event.preventDefault();
  byId("user-id").focus();
});
window.addEventListener("popstate", () => watch(userInAddress()));
setInterval(drawNotice, 1000);
setText(byId("verdict-sentence"), "Waiting for the first figures");
watch(userInAddress());
