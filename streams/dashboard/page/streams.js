// What flows: the newest records of each topic as they come, dead letters to mend and replay, settings in force.

import * as api from "./api.js";
import { count, moment, clock } from "./format.js";
import { useTail, useWorkers } from "./live.js";
import { deadWords } from "./overview.js";
import { Cell, Choice, Empty, Head, Panel, Scroll, Track, html, useEffect, useState } from "./ui.js";

const TAIL_ROWS = 200;
const LETTERS = 50;
const TOPICS = [["events", "input"], ["recommendations", "output"], ["dead-letters", "dead letters"]];

export function Streams({ frame }) {
  return html`<${LiveTail} /><${DeadLetters} frame=${frame} /><${SettingsTable} />`;
}

function LiveTail() {
  const [topic, setTopic] = useState("events");
  const [on, setOn] = useState(true);
  const [words, setWords] = useState("");
  const tail = useTail(topic, on, TAIL_ROWS);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = tail.records.filter((r) => {
    const text = `${r.key ?? ""} ${r.value ?? ""} ${Object.values(r.headers).join(" ")}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const controls = html`
    <${Choice} label="Topic" words=${TOPICS} chosen=${topic} choose=${setTopic} />
    <button type="button" id="tail-pause" aria-pressed=${!on} onClick=${() => setOn(!on)}>${on ? "Pause" : "Go on"}</button>`;
  return html`
    <${Panel} id="tail" title="Live tail" note=${`newest first, ${rows.length} of ${tail.records.length} shown`} aside=${controls}>
      <p><label>Filter <input id="tail-filter" value=${words} onInput=${(e) => setWords(e.target.value)} placeholder="words in key, value or headers" spellcheck=${false} /></label></p>
      ${tail.error && html`<p class="bad" role="alert">${tail.error}</p>`}
      ${rows.length ? html`
        <${Scroll} label="Newest records" kind="tail">
          <ol id="tail-rows">${rows.map((r) => html`<${TailRow} key=${r.number} r=${r} />`)}</ol>
        <//>`
        : html`<${Empty} id="tail-empty">${tail.records.length ? "No record of these has such words." : "Nothing came since this page's server began to watch."}<//>`}
    <//>`;
}

const TailRow = ({ r }) => html`
  <li><details><summary><time>${clock(r.timestamp)}</time> <span class="quiet">${r.partition}/${r.offset}</span> <b>${r.key ?? "no key"}</b>
    ${r.headers["errors.reason"] ? html` <span class="chip">${r.headers["errors.reason"]}</span>` : null}
    <code>${r.value === null ? "tombstone" : r.value.slice(0, 160)}</code></summary>
    <pre class="raw" tabindex="0">${pretty(r.value)}${Object.keys(r.headers).length ? `\n\n${Object.entries(r.headers).map(([k, v]) => `${k}: ${v}`).join("\n")}` : ""}</pre></details></li>`;

function pretty(text) {
  if (text === null) return "tombstone";
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text; // not JSON, or cut: shown as it is
  }
}

function DeadLetters({ frame: { dead_letters: dead, now } }) {
  const [reason, setReason] = useState("");
  const most = Math.max(1, ...dead.by_reason.map((r) => r.count));
  if (!dead.total) {
    return html`<${Panel} id="dead" title="Dead letters"><${Empty} id="dead-empty">${dead.complete ? "No dead letters: every record could count." : "Still counting the dead letters…"}<//><//>`;
  }
  return html`
    <${Panel} id="dead" title="Dead letters" note=${`${count(dead.total)} in the topic, ${deadWords(dead)}`}>
      <div class="dead-columns">
        <div>
          <ul id="dead-reasons" class="bars" aria-label="Dead letters by reason">${dead.by_reason.map((r) => html`
            <li key=${r.reason} data-key=${r.reason}>
              <button type="button" class="plain" aria-pressed=${reason === r.reason} onClick=${() => setReason(reason === r.reason ? "" : r.reason)}>${r.reason}</button>
              <b>${count(r.count)}</b><${Track} kind="bad" share=${r.count / most} /></li>`)}</ul>
          <p class="quiet small">${reason ? html`Only ${reason}. Press it again for all.` : "Press a reason to see only its letters."}</p>
        </div>
        <ol id="dead-last" class="dead-last" aria-label="Last dead letters">${dead.last.filter((l) => !reason || l.reason === reason).slice(0, 20).map((l) => html`
          <${Letter} key=${`${l.topic}/${l.partition}/${l.offset}`} l=${l} now=${now} />`)}</ol>
      </div>
      <${Mending} reason=${reason} total=${dead.total} />
    <//>`;
}

const Letter = ({ l, now }) => html`
  <li data-key=${`${l.topic}/${l.partition}/${l.offset}`}><span class="chip">${l.reason}</span>${l.message}
    <span class="quiet"> ${l.topic}/${l.partition}/${l.offset}, key ${l.key ?? "none"}, ${moment(l.timestamp, now)}</span> <code>${l.excerpt}</code></li>`;

// The letters as the topic holds them, each with its place there, so that it can be mended and sent again.
function Mending({ reason }) {
  const [state, setState] = useState({ letters: null });
  const read = async () => {
    setState({ letters: null, running: true });
    try {
      setState({ letters: (await api.deadLetters(reason, LETTERS)).letters });
    } catch (error) {
      setState({ letters: null, error: error.message });
    }
  };
  useEffect(() => setState({ letters: null }), [reason]);
  return html`
    <p class="buttons"><button type="button" id="mend" disabled=${state.running} onClick=${read}>Mend and replay${reason ? ` ${reason}` : ""}…</button></p>
    ${state.error && html`<p class="bad" role="alert">${state.error}</p>`}
    ${state.letters && !state.letters.length && html`<${Empty}>No such letters in the topic.<//>`}
    ${state.letters && html`<ol id="mendable">${state.letters.map((l) => html`<${Mendable} key=${`${l.partition}/${l.offset}`} l=${l} />`)}</ol>`}`;
}

function Mendable({ l }) {
  const original = l.value ?? "";
  const [text, setText] = useState(original);
  const [state, setState] = useState({});
  const send = async () => {
    let value;
    try {
      value = text === original ? undefined : JSON.parse(text);
    } catch (error) {
      setState({ error: `What you wrote is no JSON: ${error.message}` });
      return;
    }
    setState({ running: true });
    try {
      await api.replay([{ partition: l.partition, offset: l.offset }], value);
      setState({ done: true });
    } catch (error) {
      setState({ error: error.message });
    }
  };
  const label = `Value of letter ${l.partition}/${l.offset}`;
  return html`
    <li><p><span class="chip">${l.reason}</span>${l.message} <span class="quiet">${l.partition}/${l.offset}, key ${l.key ?? "none"}</span></p>
      <textarea aria-label=${label} rows="2" spellcheck=${false} readonly=${l.is_cut} value=${text} onInput=${(e) => setText(e.target.value)} />
      <p class="buttons"><button type="button" disabled=${state.running || state.done} onClick=${send}>${text === original ? "Replay as it is" : "Replay mended"}</button>
        ${l.is_cut && html`<span class="quiet">Too long to mend here; shown cut.</span>`}
        <span role="status" class=${state.error ? "bad" : "quiet"}>${state.error ?? (state.done ? "Sent to the input again." : "")}</span></p></li>`;
}

const SETTING_COLUMNS = [["Setting"], ["Value"], ["Source"], ["Meaning"]];
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// Of the workers, alike ones once and differences marked; or of this page's own server.
function SettingsTable() {
  const [own, setOwn] = useState({ rows: null });
  const [changed, setChanged] = useState("changed");
  const [whose, setWhose] = useState(null);
  const told = useWorkers();
  useEffect(() => {
    const rows = (found) => found.map((s) => ({ ...s, differs: false, values: [{ value: text(s.value), source: s.source, workers: [] }] }));
    api.ask("/api/settings").then((found) => setOwn({ rows: rows(found) }), (error) => setOwn({ rows: [], error: error.message }));
  }, []);
  const details = told.details;
  const shown = whose ?? (details?.settings.length ? "workers" : "page");
  const all = shown === "workers" ? details?.settings : own.rows;
  const error = shown === "workers" ? told.error : own.error;
  const rows = (all ?? []).filter((s) => changed === "all" || s.differs || s.values.some((v) => v.source !== "default"));
  const differing = rows.filter((s) => s.differs).length;
  const note = shown === "page" ? "of this page's server" : `of ${details?.workers.length ?? 0} workers${differing ? `, ${differing} ${differing === 1 ? "differs" : "differ"}` : ""}`;
  const aside = html`
    <${Choice} label="Whose settings" words=${[["workers"], ["page", "this page's server"]]} chosen=${shown} choose=${setWhose} />
    <${Choice} label="Which settings" words=${[["changed", "not the default"], ["all"]]} chosen=${changed} choose=${setChanged} />`;
  return html`
    <${Panel} id="settings" title="Settings in force" note=${note} aside=${aside}>
      ${error && html`<p class="bad" role="alert">${error}</p>`}
      ${shown === "workers" && details?.unheard.length > 0 && html`
        <p class="quiet small" id="settings-unheard">Not told yet by ${details.unheard.join(", ")}: workers tell it every half minute, older ones never.</p>`}
      ${rows.length ? html`
        <${Scroll} label="Settings"><table class="wide" aria-labelledby="settings-title"><${Head} columns=${SETTING_COLUMNS} />
          <tbody id="settings-rows">${rows.map((s) => html`<${SettingRow} key=${s.name} s=${s} />`)}</tbody></table><//>`
        : html`<${Empty} id="settings-empty">${emptyWords(shown, details, all)}<//>`}
    <//>`;
}

function emptyWords(shown, details, all) {
  if (all === null || all === undefined) return "Asking…";
  if (shown === "workers" && !details.settings.length) return "No worker has told its settings.";
  return "Every setting has its default.";
}

function SettingRow({ s }) {
  const several = s.values.length > 1;
  const who = (v) => (several ? html`<span class="quiet block small">${v.source} · ${v.workers.join(", ")}</span>` : null);
  const sources = [...new Set(s.values.map((v) => v.source))].join(", ");
  return html`
    <tr data-key=${s.name}>
      <${Cell} label="Setting" kind="name"><code>${s.name}</code>${s.differs ? html`<span class="differs block">differs</span>` : null}<//>
      <${Cell} label="Value" kind="value">${s.values.map((v) => html`<div key=${`${v.value} ${v.source}`}><code>${v.value}</code>${who(v)}</div>`)}<//>
      <${Cell} label="Source">${sources}<//>
      <${Cell} label="Meaning" kind="quiet">${s.description}<//>
    </tr>`;
}
