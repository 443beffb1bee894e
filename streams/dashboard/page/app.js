// The frame around the tabs: address, header, notice. The part after # names the tab and, for a person, the user.

import { Model } from "./model.js";
import { Overview } from "./overview.js";
import { Person } from "./person.js";
import { Streams } from "./streams.js";
import { count, duration, moment } from "./format.js";
import { useHistory, useLive } from "./live.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState, userLink } from "./ui.js";

const TABS = [
  ["overview", "Overview", Overview], ["person", "Person", Person],
  ["model", "Index · Model · Quality", Model], ["streams", "Streams", Streams],
];
const SUGGESTIONS_KEPT_MS = 15000; // long enough to read and click one

// "#/person/u%2F1" -> ["person", "u/1"]; what cannot be read is the overview.
function place() {
  const asked = new URLSearchParams(location.search).get("user"); // addresses of before the tabs
  if (asked && !location.hash) return ["person", asked];
  const [, tab, rest] = location.hash.match(/^#\/([a-z]+)(?:\/(.*))?$/) ?? [];
  if (!TABS.some(([word]) => word === tab)) return ["overview", null];
  try {
    return [tab, rest ? decodeURIComponent(rest) : null];
  } catch {
    return [tab, rest];
  }
}

// Listeners are there with the first drawing, not a frame after it: whoever types at once is heard.
function usePlace() {
  const [at, setAt] = useState(place);
  useLayoutEffect(() => {
    const moved = () => setAt(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
}

function useKeys(field) {
  useLayoutEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
      if (event.key === "/") {
        event.preventDefault();
        field.current?.focus();
        field.current?.select();
      }
      const tab = TABS[Number(event.key) - 1];
      if (tab) location.hash = `#/${tab[0]}`;
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

function Lookup({ field, user }) {
  const look = (event) => {
    event.preventDefault();
    const wanted = field.current.value.trim();
    location.hash = wanted === "" ? "#/person" : userLink(wanted);
  };
  useEffect(() => { field.current.value = user ?? ""; }, [user]);
  return html`
    <form id="lookup" role="search" onSubmit=${look}>
      <label for="user-id">User</label>
      <input id="user-id" ref=${field} name="user" maxlength="256" autocomplete="off" spellcheck=${false} placeholder="Press / to search" />
      <button type="submit">Look up</button>
    </form>`;
}

function Suggestions({ users }) {
  const kept = useRef({ users: [], at: -Infinity });
  if (users.length && performance.now() - kept.current.at > SUGGESTIONS_KEPT_MS) {
    kept.current = { users, at: performance.now() };
  }
  if (!kept.current.users.length) return null;
  return html`
    <nav id="suggest" aria-label="Users with new lists">New lists just now: <span id="suggest-users">${kept.current.users.map((user) => html`
      <a key=${user} href=${userLink(user)} data-user=${user}>${user}</a>`)}</span></nav>`;
}

function Notice({ live }) {
  const content = live.away ? lostNotice(live) : kafkaNotice(live.frame);
  return html`<div id="notice" role="alert" hidden=${!content}>${content}</div>`;
}

function lostNotice({ at, silentMs }) {
  if (at === null) return html`<b>The page's server does not answer. </b>Trying again every two seconds.`;
  return html`<b>Connection to the page's server lost. </b>
    The figures are ${duration(Math.round(silentMs / 1000))} old; trying again every two seconds.`;
}

function kafkaNotice(frame) {
  if (frame === null) return null;
  const { connection, now } = frame;
  switch (connection.state) {
    case "connecting":
      return `Connecting to Kafka at ${connection.bootstrap}…`;
    case "unreachable":
      return html`<b>Kafka unreachable since ${moment(connection.since, now)}</b>${
        ` (${duration(Math.round((now - connection.since) / 1000))}) at ${connection.bootstrap}. `
      }Figures below are the last known; the page goes on by itself once Kafka answers. <span class="quiet">${connection.error ?? ""}</span>`;
    case "no-topics":
      return html`<b>Topics are missing: </b>${`${connection.missing_topics.join(", ")}. Create them with `}<code>nearstream topics create</code>.`;
    default:
      return null;
  }
}

function title(frame) {
  const known = frame && !["connecting", "no-topics"].includes(frame.connection.state);
  return known ? `${frame.group.verdict} · ${count(frame.group.lag)} behind · Nearstream` : "Nearstream";
}

function Page() {
  const [tab, rest] = usePlace();
  const user = tab === "person" ? rest : null;
  const field = useRef(null);
  const live = useLive(user);
  const history = useHistory();
  useKeys(field);
  useEffect(() => { document.title = title(live.frame); });
  useEffect(() => { scrollTo(0, 0); }, [tab]);
  const stale = live.away || live.frame?.connection.state === "unreachable";
  useEffect(() => { document.body.className = stale ? "stale" : ""; }, [stale]);
  const Tab = TABS.find(([word]) => word === tab)[2];
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the figures</a>
    <header class="bar">
      <h1>Nearstream <small id="group-name">${live.frame?.group.name ?? ""}</small></h1>
      <nav aria-label="Parts of this page">
        ${TABS.map(([word, text]) => html`
          <a key=${word} href=${`#/${word}`} aria-current=${word === tab ? "page" : undefined}>${text}</a>`)}
      </nav>
      <${Lookup} field=${field} user=${user} />
    </header>
    <${Notice} live=${live} />
    <${Suggestions} users=${live.frame?.recent_users ?? []} />
    <main id="main" tabindex="-1">
      ${live.frame === null
        ? html`<p class="empty" id="waiting">Waiting for the first figures…</p>`
        : html`<${Tab} key=${tab} frame=${live.frame} history=${history} user=${user} person=${live.person} />`}
    </main>`;
}

const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Page} />`, root);
