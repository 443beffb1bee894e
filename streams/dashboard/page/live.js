// What the server tells: frames by server-sent events, the hour's history in steps. Bounded; nothing is kept twice.

import { ask } from "./api.js";
import { useEffect, useRef, useState } from "./ui.js";

const RETRY_MS = 2000;
const STALE_MS = 5000;
const HISTORY_MS = 5000;
const MARKERS_MAX = 200;

// Frames of the overview and of the watched user; `away` is true while the server is silent.
export function useLive(user) {
  const [live, setLive] = useState({ frame: null, at: null, person: null, lost: false });
  useEffect(() => {
    let source, retry;
    const listen = () => {
      source = new EventSource(user === null ? "/api/stream" : `/api/stream?user=${encodeURIComponent(user)}`);
      source.addEventListener("overview", (event) => {
        const frame = JSON.parse(event.data);
        setLive((was) => ({ ...was, frame, at: performance.now(), lost: false }));
      });
      source.addEventListener("user", (event) => {
        const person = JSON.parse(event.data);
        setLive((was) => ({ ...was, person }));
      });
      source.addEventListener("error", () => {
        source.close();
        setLive((was) => ({ ...was, lost: true }));
        retry = setTimeout(listen, RETRY_MS);
        ask("/api/overview").catch((error) => { if (error.status === 401) location.assign("/sign-in"); });
      });
    };
    setLive((was) => ({ ...was, person: was.person?.user_id === user ? was.person : null }));
    listen();
    return () => {
      clearTimeout(retry);
      source.close();
    };
  }, [user]);
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const silentMs = live.at === null ? 0 : performance.now() - live.at;
  return { ...live, silentMs, away: live.lost || silentMs > STALE_MS };
}

const NOTHING = { moments: [], markers: [], partitions: [], edges_ms: [], step_ms: HISTORY_MS };

// The last hour. Asks for what is newer than what it has, and drops what the server has dropped.
export function useHistory() {
  const [history, setHistory] = useState(NOTHING);
  const last = useRef(NOTHING);
  useEffect(() => {
    let timer = null, ended = false;
    const read = async () => {
      try {
        if (!document.hidden) {
          const chapter = await ask(`/api/history?since=${newest(last.current)}`);
          if (ended) return;
          last.current = joined(last.current, chapter);
          setHistory(last.current);
        }
      } catch (error) {
        if (error.status) console.warn(error.message); // 0: the notice says it already
      }
      if (!ended) timer = setTimeout(read, last.current.moments.length < 3 ? 1000 : HISTORY_MS);
    };
    read();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, []);
  return history;
}

const newest = (history) => history.moments.at(-1)?.time ?? 0;

export function joined(known, chapter) {
  const same = known.partitions.length === chapter.partitions.length;
  const moments = (same ? known.moments : []).filter((m) => m.time >= chapter.oldest).concat(chapter.moments);
  const seen = new Set(chapter.markers.map((m) => `${m.time} ${m.text}`));
  const markers = known.markers.filter((m) => !seen.has(`${m.time} ${m.text}`)).concat(chapter.markers).slice(-MARKERS_MAX);
  return { ...chapter, moments, markers };
}

// What workers tell of themselves now and then: settings, models, rules. `details` is null until it is known.
export function useWorkers() {
  const [state, setState] = useState({ details: null, error: null });
  useEffect(() => {
    let timer = null, ended = false;
    const read = async () => {
      try {
        if (!document.hidden) {
          const details = await ask("/api/workers");
          if (!ended) setState({ details, error: null });
        }
      } catch (error) {
        if (!ended) setState((was) => ({ ...was, error: error.message }));
      }
      if (!ended) timer = setTimeout(read, HISTORY_MS);
    };
    read();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, []);
  return state;
}

// The newest records of a topic, newest first; asks once a second while `on`.
export function useTail(topic, on, rowsMax) {
  const [tail, setTail] = useState({ topic, records: [], error: null });
  useEffect(() => {
    if (!on) return undefined;
    let timer = null, ended = false, last = 0;
    setTail({ topic, records: [], error: null });
    const read = async () => {
      try {
        const found = await ask(`/api/tail?topic=${topic}&after=${last}`);
        if (ended) return;
        if (found.length) last = found.at(-1).number;
        setTail((was) => ({ topic, records: [...found.reverse(), ...was.records].slice(0, rowsMax), error: null }));
      } catch (error) {
        if (!ended) setTail((was) => ({ ...was, error: error.message }));
      }
      if (!ended) timer = setTimeout(read, 1000);
    };
    read();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [topic, on, rowsMax]);
  return tail;
}
