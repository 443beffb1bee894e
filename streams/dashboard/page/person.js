// One person: what they did beside what they get, why, and what one more event would change.

import { Path } from "./charts.js";
import * as api from "./api.js";
import { count, duration, moment, share, signed, similarity } from "./format.js";
import { Empty, Panel, Track, html, useEffect, useRef, useState, userLink } from "./ui.js";
import { WhatIf } from "./what_if.js";

const TYPES = [
  "view", "click", "cart", "purchase", "rating", "like", "dislike", "comment", "share", "bookmark", "follow", "search",
  "impression", "remove",
];
const REASONS_SHOWN = 3;
const CAUSES = {
  event: "after their own event", neighbour: "because a neighbour moved", model: "by a new model", command: "by command",
};

export function Person({ frame, user, person }) {
  if (user === null) return html`<${Nobody} recent=${frame.recent_users} />`;
  const known = person?.user_id === user ? person : null;
  return html`
    <div id="person">
      <${Header} user=${user} person=${known} />
      ${known?.state !== "unknown" && known?.state !== "gone" ? html`
        <div class="person-columns">
          <div><${Timeline} person=${known} /></div>
          <div><${TryIt} key=${user} user=${user} person=${known} /><${WhatIf} key=${`if ${user}`} user=${user} person=${known} types=${TYPES} Item=${Item} /><${List} person=${known} /></div>
          <div><${Neighbours} person=${known} /><${InterestsPanel} person=${known} /><${Change} person=${known} /><${Raw} person=${known} /></div>
        </div>` : html`<${TryIt} key=${user} user=${user} person=${known} />`}
    </div>`;
}

function Nobody({ recent }) {
  return html`
    <${Panel} id="nobody" title="Whose profile?">
      <p>Look a user up: press <kbd>/</kbd>, type the id, press Enter. The address then leads back here.</p>
      ${recent.length ? html`<p class="quiet">Users with a new list: ${recent.map((u) => html`<a key=${u} href=${userLink(u)}>${u}</a> `)}</p>`
        : html`<p class="quiet">No list was published since this page's server began to watch.</p>`}
    <//>`;
}

function Header({ user, person }) {
  const list = person?.list;
  return html`
    <section class="panel person-head" aria-labelledby="person-id">
      <h2 id="person-id">${user}</h2>
      <p id="person-facts">${list ? facts(list, person.now) : ""}</p>
      <span class="aside"><${Forget} user=${user} /><a class="plain" href="#/person" id="person-close">Close</a></span>
      <p id="person-message" role="status" hidden=${Boolean(person && !person.message)}>${person ? person.message : "Looking the user up…"}</p>
    </section>`;
}

const facts = (list, now) => [
  `${count(list.profile_events)} events in the profile`,
  `list of ${moment(list.generated_at, now)}, ${CAUSES[list.cause] ?? list.cause}`,
  list.model, `${count(list.index_users)} users in the index`,
].join(" · ");

function Forget({ user }) {
  const dialog = useRef(null);
  const [state, setState] = useState({});
  useEffect(() => setState({}), [user]);
  const forget = async () => {
    setState({ running: true });
    try {
      setState({ receipt: await api.forget(user) });
    } catch (error) {
      setState({ error: error.message });
    }
  };
  return html`
    <button type="button" id="forget" onClick=${() => { setState({}); dialog.current.showModal(); }}>Forget…</button>
    <dialog ref=${dialog} aria-labelledby="forget-title">
      <h2 id="forget-title">${state.receipt ? "Asked to forget" : "Forget this user?"}</h2>
      ${state.receipt ? html`<${Receipt} receipt=${state.receipt} />` : html`
        <p>Profile, list and events of <b>${user}</b> stop counting everywhere and cannot be brought back.</p>
        ${state.error && html`<p class="bad" role="alert">${state.error}</p>`}`}
      <p class="buttons">
        ${!state.receipt && html`<button type="button" class="danger" id="forget-yes" disabled=${state.running} onClick=${forget}>Forget ${user}</button>`}
        <button type="button" onClick=${() => dialog.current.close()}>${state.receipt ? "Close" : "Keep"}</button>
      </p>
    </dialog>`;
}

function Receipt({ receipt }) {
  const rows = Object.entries(receipt).filter(([, v]) => v !== null && typeof v !== "object");
  return html`
    <p>Keep this receipt. The list goes within seconds, what is left in files by the deadline.</p>
    <dl class="facts" id="receipt">${rows.map(([name, value]) => html`
      <div key=${name}><dt>${name.replaceAll("_", " ")}</dt><dd>${typeof value === "number" && value > 1e12 ? moment(value, 0) : String(value)}</dd></div>`)}</dl>`;
}

// Sends an event and says how long it took until the list that reflects it was here.
function TryIt({ user, person }) {
  const [sent, setSent] = useState({});
  const item = useRef(null), type = useRef(null), value = useRef(null);
  const list = person?.list;
  useEffect(() => {
    if (sent.offset === undefined || sent.seenMs !== undefined || !list) return;
    if (list.source_partition === sent.partition && list.source_offset >= sent.offset) {
      setSent({ ...sent, seenMs: performance.now() - sent.at });
    }
  }, [list?.rec_id, sent.offset]);
  const send = async (event) => {
    event.preventDefault();
    const at = performance.now();
    const number = value.current.value.trim();
    setSent({ running: true });
    try {
      const answer = await api.sendEvent({
        user_id: user, item_id: item.current.value.trim(), type: type.current.value, timestamp: Date.now(),
        ...(number === "" ? {} : { value: Number(number) }),
      });
      setSent({ at, ackedMs: performance.now() - at, ...answer.events[0] });
    } catch (error) {
      setSent({ error: error.message });
    }
  };
  return html`
    <${Panel} id="try" title="Try it" note="sends a real event">
      <form class="try" onSubmit=${send}>
        <label>Type <select ref=${type} id="try-type">${TYPES.map((t) => html`<option key=${t} selected=${t === "click"}>${t}</option>`)}</select></label>
        <label class="grow">Item <input ref=${item} id="try-item" required maxlength="256" list="try-items" autocomplete="off" /></label>
        <datalist id="try-items">${(list?.items ?? []).map((i) => html`<option key=${i.item_id} value=${i.item_id}>${i.title ?? ""}</option>`)}</datalist>
        <label>Value <input ref=${value} id="try-value" type="number" step="any" class="short" /></label>
        <button type="submit" id="try-send" disabled=${sent.running}>Send</button>
      </form>
      <p id="try-result" role="status" class=${sent.error ? "bad" : "quiet"} data-seen-ms=${sent.seenMs?.toFixed(0)}>${tried(sent)}</p>
    <//>`;
}

function tried(sent) {
  if (sent.error) return sent.error;
  if (sent.running) return "Sending…";
  if (sent.offset === undefined) return "";
  const where = `Partition ${sent.partition}, offset ${count(sent.offset)}, acknowledged after ${sent.ackedMs.toFixed(0)} ms`;
  return sent.seenMs === undefined ? `${where}; waiting for the list…` : `${where}; the list that knows it was here after ${sent.seenMs.toFixed(0)} ms.`;
}

function Timeline({ person }) {
  const events = person?.events ?? [];
  const most = Math.max(1e-9, ...events.map((e) => Math.abs(e.weight ?? 0)));
  return html`
    <${Panel} id="timeline" title="Events" note=${events.length ? `the last ${events.length}, newest first` : ""}>
      <ol id="person-events" class="timeline">${events.map((e) => html`
        <${EventLine} key=${`${e.partition}/${e.offset}`} e=${e} most=${most} now=${person.now} />`)}</ol>
      ${person && !events.length && html`<${Empty}>No events of this user were found.<//>`}
    <//>`;
}

function EventLine({ e, most, now }) {
  if (e.type === null) {
    return html`<li><span class="chip" data-type="unreadable">unreadable</span><span class="grow quiet">cannot be read; see the dead letters</span>
      <time>${moment(e.received_at, now)}</time></li>`;
  }
  return html`
    <li>
      <span class="chip" data-type=${e.type}>${e.type}</span>
      <span class="grow" title=${e.item_id}>${e.title ?? e.item_id}${e.value === null ? "" : html` <span class="quiet">${e.value}</span>`}</span>
      <span class="weight" title="weight of its type"><${Track} kind=${e.weight < 0 ? "away" : ""} share=${Math.abs(e.weight ?? 0) / most} />${signed(e.weight)}</span>
      <time class="quiet">${moment(e.received_at, now)}</time>
    </li>`;
}

const places = (list) => new Map((list?.items ?? []).map((item, place) => [item.item_id, place]));

function List({ person }) {
  const list = person?.list;
  const before = places(person?.before);
  const best = Math.max(1e-9, ...(list?.items ?? []).map((i) => i.score));
  return html`
    <${Panel} id="list" title="List" note=${list ? `${list.items.length} items` : ""}>
      <ol id="person-items" class="items">
        ${(list?.items ?? []).map((item, i) => html`<${Item} key=${item.item_id} item=${item} best=${best} was=${before.get(item.item_id)} place=${i} compared=${before.size > 0} />`)}
        ${person && !list?.items.length && html`<li class="empty">${list ? "The list is empty." : "No list."}</li>`}
      </ol>
      ${list?.short_because && html`<p class="quiet" id="person-short">${list.short_because}</p>`}
    <//>`;
}

function Item({ item, best, was, place, compared }) {
  const moved = was === undefined ? null : was - place;
  const reasons = item.reasons.toSorted((a, b) => b.share - a.share);
  const [main, minor] = [reasons.slice(0, REASONS_SHOWN), reasons.slice(REASONS_SHOWN)];
  return html`
    <li>
      <p class="item-head"><span class="grow" title=${item.item_id}>${item.title ?? item.item_id}</span>
        ${compared && html`<${Moved} moved=${moved} />`}
        <span class="score" title="score"><${Track} share=${item.score / best} />${item.score.toFixed(2)}</span></p>
      <${Reasons} reasons=${main} />
      ${minor.length > 0 && html`<${MinorReasons} reasons=${minor} />`}
    </li>`;
}

const Reasons = ({ reasons }) => html`
  <ul class="reasons">${reasons.map((r) => html`
    <li key=${r.text}><${Track} share=${r.share} /><span class="number">${share(r.share)}</span><span class="grow">${r.text}</span></li>`)}</ul>`;

// Drawn when they are asked for: most are never read.
function MinorReasons({ reasons }) {
  const [open, setOpen] = useState(false);
  return html`
    <details class="more" onToggle=${(event) => setOpen(event.target.open)}>
      <summary>${reasons.length} smaller ${reasons.length === 1 ? "reason" : "reasons"}</summary>
      ${open && html`<${Reasons} reasons=${reasons} />`}
    </details>`;
}

function Moved({ moved }) {
  if (moved === null) return html`<span class="moved new">new</span>`;
  if (moved === 0) return html`<span class="moved quiet" title="same place as before">=</span>`;
  return html`<span class="moved ${moved > 0 ? "up" : "down"}">${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)}</span>`;
}

function Neighbours({ person }) {
  const list = person?.list;
  const before = new Map((person?.before?.neighbours ?? []).map((n) => [n.user_id, n.similarity]));
  const gone = [...before.keys()].filter((u) => !list?.neighbours.some((n) => n.user_id === u));
  return html`
    <${Panel} id="neighbours" title="Neighbours" note=${before.size ? "cosine now, and since the list before" : "cosine"}>
      <ol id="person-neighbours" class="neighbours">${(list?.neighbours ?? []).map((n) => html`
        <li key=${n.user_id}><a href=${userLink(n.user_id)} data-user=${n.user_id}>${n.user_id}</a><span>${similarity(n.similarity)}</span>${before.size ? html`<${Nearer} now=${n.similarity} was=${before.get(n.user_id)} />` : null}</li>`)}
      </ol>
      ${list && !list.neighbours.length && html`<${Empty}>Nobody is near yet.<//>`}
      ${list && gone.length > 0 && html`<p class="quiet small">No longer near: ${gone.join(", ")}</p>`}
    <//>`;
}

function Nearer({ now, was }) {
  if (was === undefined) return html`<span class="moved new">new</span>`;
  const change = now - was;
  const word = Math.abs(change) < 0.005 ? "=" : signed(Number(change.toFixed(2)));
  return html`<span class=${`moved ${word === "=" ? "quiet" : change > 0 ? "up" : "down"}`} title=${`before: ${similarity(was)}`}>${word}</span>`;
}

function InterestsPanel({ person }) {
  const found = person?.interests;
  return html`
    <${Panel} id="interests" title="Interests over time" note=${found ? `${share(found.shown)} of the movement` : ""}>
      ${found ? html`
        <${Path} points=${found.points} say=${`The profile over ${found.points.length} moments, on the plane that shows ${share(found.shown)} of its movement; its last step moved it by ${found.points.at(-1).moved.toFixed(3)}.`} />
        <p class="quiet small">The profile's last ${found.points.length} vectors on their principal plane; near points are similar interests, the largest is now.</p>`
        : html`<${Empty}>Too few moments of this profile in the topic to draw a path.<//>`}
    <//>`;
}

function Change({ person }) {
  const { list, before } = person ?? {};
  if (!list || !before) return null;
  const was = places(before), now = places(list);
  const title = (item) => item.title ?? item.item_id;
  const came = list.items.filter((i) => !was.has(i.item_id));
  const left = before.items.filter((i) => !now.has(i.item_id));
  const moved = list.items.filter((i) => was.has(i.item_id) && was.get(i.item_id) !== now.get(i.item_id));
  return html`
    <${Panel} id="change" title="What changed" note=${`since the list of ${moment(before.generated_at, person.now)}, ${duration((list.generated_at - before.generated_at) / 1000)} earlier`}>
      <dl class="change">
        <dt>came</dt><dd id="came">${came.map(title).join(", ") || "nothing"}</dd>
        <dt>left</dt><dd id="left">${left.map(title).join(", ") || "nothing"}</dd>
        <dt>moved</dt><dd>${count(moved.length)} of ${count(list.items.length)} items</dd>
        <dt>profile</dt><dd>${count(before.profile_events)} → ${count(list.profile_events)} events</dd>
      </dl>
    <//>`;
}

function Raw({ person }) {
  const events = person?.events ?? [];
  if (!events.length) return null;
  return html`
    <${Panel} id="raw" title="Raw messages">
      ${events.slice(0, 5).map((e) => html`
        <details key=${`${e.partition}/${e.offset}`}><summary>${e.type ?? "unreadable"} · partition ${e.partition}, offset ${e.offset}</summary><pre class="raw" tabindex="0">${e.raw}</pre></details>`)}
    <//>`;
}
