// What a person's list would be without some of the history, and after events that did not happen. Nothing is sent.

import * as api from "./api.js";
import { moment, signed } from "./format.js";
import { Panel, Scroll, html, useEffect, useRef, useState, userLink } from "./ui.js";

const EVENTS_MAX = 8, ITEMS_MAX = 32;

// `Item` draws one item of a list, `types` are those of events: the Person tab's own.
export function WhatIf({ user, person, types, Item }) {
  const [open, setOpen] = useState(false);
  return html`
    <${Panel} id="what-if" title="What if" note="nothing is sent, nothing changes">
      <details id="what-if-open" onToggle=${(event) => setOpen(event.target.open)}>
        <summary>Leave items of the history out, add events, and see the list</summary>
        ${open && html`<${Question} user=${user} person=${person} types=${types} Item=${Item} />`}
      </details>
    <//>`;
}

function Question({ user, person, types, Item }) {
  const [history, setHistory] = useState({ items: null });
  const [gone, setGone] = useState(new Set());
  const [events, setEvents] = useState([]);
  const [answer, setAnswer] = useState({});
  useEffect(() => {
    let ended = false;
    api.remembered(user).then(
      (items) => { if (!ended) setHistory({ items }); },
      (error) => { if (!ended) setHistory({ items: null, error: error.message }); },
    );
    return () => { ended = true; };
  }, [user, person?.list?.rec_id]);
  const left = (history.items ?? []).filter((i) => gone.has(i.item_id)).map((i) => i.item_id);
  const tick = (id) => setGone((was) => { const next = new Set(was); if (!next.delete(id)) next.add(id); return next; });
  const empty = left.length === 0 && events.length === 0;
  const ask = async (event) => {
    event.preventDefault();
    setAnswer((was) => ({ ...was, running: true }));
    try {
      setAnswer({ found: await api.whatIf({ user_id: user, without: left, events: events.map(({ key, ...e }) => e) }) });
    } catch (error) {
      setAnswer({ error: error.message });
    }
  };
  const clear = () => { setGone(new Set()); setEvents([]); setAnswer({}); };
  return html`
    <form class="what-if" onSubmit=${ask}>
      <${History} history=${history} gone=${gone} tick=${tick} now=${person?.now ?? 0} />
      <${Events} events=${events} setEvents=${setEvents} types=${types} suggested=${person?.list?.items ?? []} />
      <p class="buttons">
        <button type="submit" id="what-if-ask" disabled=${answer.running || empty || left.length > ITEMS_MAX}>Ask</button>
        <button type="button" id="what-if-clear" disabled=${empty && !answer.found && !answer.error} onClick=${clear}>Clear</button>
      </p>
    </form>
    <p id="what-if-result" role="status" class=${answer.error ? "bad" : "quiet"}>${said(answer, empty)}</p>
    ${answer.found && html`<${Answer} found=${answer.found} Item=${Item} />`}`;
}

function said({ found, error, running }, empty) {
  if (running) return "Asking a worker…";
  if (error) return error;
  if (!found) return empty ? "Tick an item or add an event, then ask." : "";
  const { entered, left, moved } = difference(found);
  const profile = found.profile_cosine === null ? "the profile would have no direction, or has none now"
    : `the profile would lie at cosine ${found.profile_cosine.toFixed(3)} to what it is`;
  const rebuilt = found.left_out ? " Both lists are made from the remembered events alone." : "";
  if (!entered.size && !left.length && !moved) return `The list would be the same; ${profile}.${rebuilt}`;
  return `${entered.size} would enter, ${left.length} would leave, ${moved} would move; ${profile}.${rebuilt}`;
}

function difference(found) {
  const ranks = new Map(found.now.items.map((item, rank) => [item.item_id, rank]));
  const then = new Set(found.then.items.map((item) => item.item_id));
  return {
    ranks,
    entered: new Set([...then].filter((id) => !ranks.has(id))),
    left: found.now.items.filter((item) => !then.has(item.item_id)),
    moved: found.then.items.filter((item, rank) => ranks.has(item.item_id) && ranks.get(item.item_id) !== rank).length,
  };
}

function History({ history, gone, tick, now }) {
  const items = history.items ?? [];
  return html`
    <fieldset>
      <legend>Leave out</legend>
      ${history.error ? html`<p class="bad" role="alert" id="what-if-history-error">${history.error}</p>`
        : history.items === null ? html`<p class="quiet">Reading the history…</p>`
        : items.length === 0 ? html`<p class="quiet">The profile remembers no item.</p>`
        : html`<${Scroll} label="Items of the history" kind="history">
            ${items.map((i) => html`
              <label key=${i.item_id} class="tick"><input type="checkbox" checked=${gone.has(i.item_id)} onChange=${() => tick(i.item_id)} data-item=${i.item_id} />
                <span class="grow" title=${i.item_id}>${i.title ?? i.item_id}</span>
                <span class="quiet">${i.events > 1 ? `${i.events} events, last ` : ""}${i.type ?? "event"}</span>
                <time class="quiet">${moment(i.timestamp, now)}</time></label>`)}
          <//>`}
    </fieldset>`;
}

function Events({ events, setEvents, types, suggested }) {
  const item = useRef(null), type = useRef(null), value = useRef(null), next = useRef(0);
  const add = () => {
    const id = item.current.value.trim(), number = value.current.value.trim();
    if (id !== "") {
      const valued = number === "" ? {} : { value: Number(number) };
      setEvents([...events, { key: next.current++, item_id: id, type: type.current.value, ...valued }]);
      item.current.value = value.current.value = "";
    }
    item.current.focus();
  };
  const entered = (event) => {
    if (event.key === "Enter" && item.current.value.trim() !== "" && events.length < EVENTS_MAX) { event.preventDefault(); add(); }
  };
  return html`
    <fieldset>
      <legend>Add events that did not happen</legend>
      <div class="try">
        <label>Type <select ref=${type} id="what-if-type">${types.map((t) => html`<option key=${t} selected=${t === "click"}>${t}</option>`)}</select></label>
        <label class="grow">Item <input ref=${item} id="what-if-item" maxlength="256" list="what-if-items" autocomplete="off" onKeyDown=${entered} /></label>
        <datalist id="what-if-items">${suggested.map((i) => html`<option key=${i.item_id} value=${i.item_id}>${i.title ?? ""}</option>`)}</datalist>
        <label>Value <input ref=${value} id="what-if-value" type="number" step="any" class="short" onKeyDown=${entered} /></label>
        <button type="button" id="what-if-add" disabled=${events.length >= EVENTS_MAX} onClick=${add}>Add</button>
      </div>
      <ul id="what-if-events" class="supposed">${events.map((e) => html`
        <li key=${e.key}><span class="chip" data-type=${e.type}>${e.type}</span><span class="grow">${e.item_id}${e.value === undefined ? "" : html` <span class="quiet">${e.value}</span>`}</span>
          <button type="button" aria-label=${`Take out ${e.type} of ${e.item_id}`} onClick=${() => setEvents(events.filter((o) => o.key !== e.key))}>×</button></li>`)}</ul>
    </fieldset>`;
}

function Answer({ found, Item }) {
  const { ranks, left } = difference(found);
  const best = Math.max(1e-9, ...found.then.items.map((i) => i.score));
  const near = new Map(found.now.neighbours.map((n) => [n.user_id, n.similarity]));
  return html`
    <h3>The list would be</h3>
    <ol id="what-if-list" class="items">${found.then.items.map((item, place) => html`
      <${Item} key=${item.item_id} item=${item} best=${best} was=${ranks.get(item.item_id)} place=${place} compared=${true} />`)}
      ${found.then.items.length === 0 && html`<li class="empty">Empty.</li>`}</ol>
    ${found.then.short_because && html`<p class="quiet">${found.then.short_because}</p>`}
    ${left.length > 0 && html`<h3>Would leave</h3>
      <ul id="what-if-left" class="supposed">${left.map((item) => html`
        <li key=${item.item_id}><span class="moved down">left</span><span class="grow" title=${item.item_id}>${item.title ?? item.item_id}</span><span class="quiet">was ${ranks.get(item.item_id) + 1}</span></li>`)}</ul>`}
    ${found.then.neighbours.length > 0 && html`<h3>Nearest then</h3>
      <ol id="what-if-neighbours" class="neighbours">${found.then.neighbours.map((n) => html`
        <li key=${n.user_id}><a href=${userLink(n.user_id)}>${n.user_id}</a><span>${n.similarity.toFixed(2)}</span>
          <span class="moved quiet">${near.has(n.user_id) ? signed(Number((n.similarity - near.get(n.user_id)).toFixed(2))) : "new"}</span></li>`)}</ol>`}`;
}
