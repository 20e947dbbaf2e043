// The built-in page. Whatever comes from models, events or hardware is inserted as text.
"use strict";

const POLL_MS = 2000;
const OLD_MS = 15000;
const KEPT_STREAMS = 6;
const KEPT_CHARS = 20000;
const KEPT_EVENTS = 8;
const QUIET = new Set(["llm_stream_chunk", "llm_request", "llm_response", "hardware", "heartbeat"]);
const UNKNOWN = "–";

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Numbers with their units.

const decimals = (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits });
const whole = decimals(0);
const tenth = decimals(1);
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const number = (value, format = whole) => (value === null || value === undefined ? UNKNOWN : format.format(value));
const percent = (share) => (share === null ? UNKNOWN : `${tenth.format(share * 100)} %`);
const gibibytes = (bytes) => (bytes === null ? UNKNOWN : tenth.format(bytes / 2 ** 30));

function duration(ms) {
  if (ms === null || ms === undefined) return UNKNOWN;
  return ms < 1000 ? `${whole.format(ms)} ms` : `${decimals(2).format(ms / 1000)} s`;
}

function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

function show(id, value, unit = "") {
  const place = byId(id);
  place.replaceChildren(value);
  if (unit && value !== UNKNOWN) place.append(" ", element("span", { class: "unit" }, unit));
}

function fillTable(table, heads, rows, texts = 1) {
  const cell = (name, value, index) => {
    const made = element(name, index < texts ? { class: "text" } : {});
    if (name === "th") made.scope = "col";
    made.append(value);
    if (name === "td" && index === 0) made.title = made.textContent;
    return made;
  };
  const line = (name, values) => element("tr", {}, ...values.map((value, index) => cell(name, value, index)));
  const body = element("tbody", {}, ...rows.map((row) => line("td", row)));
  if (!rows.length) {
    const none = element("td", { class: "empty", colspan: String(heads.length) }, "None yet.");
    body.append(element("tr", {}, none));
  }
  table.replaceChildren(element("thead", {}, line("th", heads)), body);
}

// Requests and tokens.

const GROUP_HEADS = ["", "requests", "success", "tokens in", "tokens out", "tokens/s", "P95"];

function groupRow([name, group]) {
  return [
    name,
    number(group.total_requests),
    percent(group.success_rate),
    number(group.tokens.input),
    number(group.tokens.output),
    number(group.tokens_per_second, tenth),
    duration(group.latency_ms.p95),
  ];
}

function showGroups(id, head, groups) {
  const rows = Object.entries(groups).sort((a, b) => b[1].total_requests - a[1].total_requests);
  byId(`${id}-count`).textContent = `(${rows.length})`;
  fillTable(byId(`${id}-table`), [head, ...GROUP_HEADS.slice(1)], rows.map(groupRow));
}

function recentRow(request) {
  const ended = request.status === "ok" ? "ok" : request.error_type || request.status;
  return [
    clock(request.started_at),
    request.agent || UNKNOWN,
    request.model,
    element("span", { class: request.status === "ok" ? "ok" : "failed" }, ended),
    `${number(request.input_tokens)} / ${number(request.output_tokens)}`,
    number(request.tokens_per_second, tenth),
    duration(request.ttft_ms),
    duration(request.latency_ms),
  ];
}

function showPerformance(found) {
  const all = found.overall;
  show("tokens-total", number(all.tokens.total, all.tokens.total >= 1e6 ? compact : whole));
  byId("tokens-split").textContent = `${number(all.tokens.input)} in, ${number(all.tokens.output)} out`;
  show("rate", number(all.tokens_per_second, tenth), "tokens/s");
  const [value, unit] = duration(all.latency_ms.p95).split(" ");
  show("p95", value, unit);
  byId("p95-sub").textContent = all.latency_ms.p50 === null
    ? "none has succeeded yet"
    : `median ${duration(all.latency_ms.p50)}, first token ${duration(all.ttft_ms.p50)}`;
  show("requests", number(all.total_requests));
  const success = all.success_rate === null ? "" : `${percent(all.success_rate)} succeeded, `;
  byId("requests-sub").textContent = `${success}${number(all.active)} under way`;
  showGroups("agents", "agent", found.by_agent);
  showGroups("models", "model", found.by_model);
  const heads = ["time", "agent", "model", "result", "tokens in / out", "tokens/s", "first token", "latency"];
  fillTable(byId("recent-table"), heads, found.recent.slice(0, 10).map(recentRow), 4);
}

// Hardware.

function gauge(name, share, text, high = 0.9) {
  const known = share !== null && Number.isFinite(share);
  const fill = element("div", { class: known && share >= high ? "fill high" : "fill" });
  fill.style.width = known ? `${Math.min(100, Math.max(0, share * 100))}%` : "0";
  const track = element("div", { class: "track" }, fill);
  if (known) {
    for (const [key, value] of Object.entries({
      role: "meter", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "100",
      "aria-valuenow": String(Math.round(share * 100)), "aria-valuetext": text,
    })) track.setAttribute(key, value);
  }
  return element("div", { class: "gauge" }, element("span", {}, name), element("span", { class: "value" }, text), track);
}

const share = (value, total) => (value === null || !total ? null : value / total);

function temperature(gpu) {
  const others = [["junction", gpu.junction_temperature_c], ["memory", gpu.memory_temperature_c]]
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${whole.format(value)}`);
  const own = gpu.temperature_c === null ? UNKNOWN : whole.format(gpu.temperature_c);
  const text = others.length ? `${own} (${others.join(", ")}) °C` : `${own} °C`;
  const value = gpu.temperature_c ?? gpu.junction_temperature_c;
  return gauge("Temperature", share(value, gpu.temperature_limit_c ?? 100), text, 0.95);
}

function gpuCard(gpu) {
  const title = element("h3", {}, gpu.name || gpu.uuid);
  if (gpu.throttle_reasons?.length) {
    title.append(element("span", { class: "badge" }, `throttled: ${gpu.throttle_reasons.join(", ")}`));
  }
  const card = element("div", { class: "card" }, title);
  const about = [gpu.parent ? "MIG instance" : null, gpu.driver && `driver ${gpu.driver}`, `read by ${gpu.source}`];
  card.append(element("p", { class: "sub" }, about.filter(Boolean).join(", ")));
  if (gpu.error) {
    card.append(element("p", { class: "failed" }, gpu.error));
    return card;
  }
  const cap = gpu.power_limit_w === null ? "" : ` of ${whole.format(gpu.power_limit_w)}`;
  card.append(
    gauge("Utilisation", share(gpu.utilization_percent, 100), number(gpu.utilization_percent) + " %", 2),
    gauge("Memory", share(gpu.vram_used_bytes, gpu.vram_total_bytes),
      `${gibibytes(gpu.vram_used_bytes)} of ${gibibytes(gpu.vram_total_bytes)} GiB`, 0.95),
    temperature(gpu),
    gauge("Power", share(gpu.power_w, gpu.power_limit_w), `${number(gpu.power_w)}${cap} W`, 2),
  );
  const rest = [
    gpu.core_clock_mhz !== null && `core ${whole.format(gpu.core_clock_mhz)} MHz`,
    gpu.memory_clock_mhz !== null && `memory ${whole.format(gpu.memory_clock_mhz)} MHz`,
    gpu.fan_percent !== null && `fan ${whole.format(gpu.fan_percent)} %`,
    gpu.fan_rpm !== null && `fan ${whole.format(gpu.fan_rpm)} rpm`,
  ];
  card.append(element("p", { class: "sub" }, rest.filter(Boolean).join(", ")));
  return card;
}

function noGpuCard(gpu) {
  const tried = gpu.tried.map((each) => element("li", {}, `${each.source}: ${each.reason}`));
  return element("div", { class: "card" }, element("h3", {}, gpu.reason || "No GPU found"), element("ul", {}, ...tried));
}

function hostCard(host) {
  const card = element("div", { class: "card" }, element("h3", {}, host.hostname));
  card.append(
    gauge("Processors", share(host.cpu_percent, 100), `${number(host.cpu_percent)} %`, 2),
    gauge("Memory", share(host.memory_used_bytes, host.memory_total_bytes),
      `${gibibytes(host.memory_used_bytes)} of ${gibibytes(host.memory_total_bytes)} GiB`),
    gauge("Disk", share(host.disk_used_bytes, host.disk_total_bytes),
      `${gibibytes(host.disk_used_bytes)} of ${gibibytes(host.disk_total_bytes)} GiB`, 0.95),
  );
  return card;
}

function showHardware(found) {
  const cards = found.gpu.gpus.length ? found.gpu.gpus.map(gpuCard) : [noGpuCard(found.gpu)];
  if (found.host) cards.push(hostCard(found.host));
  byId("hardware").replaceChildren(...cards);
}

// The live stream.

const streams = new Map();
let chosen = null;
let drawing = false;
const cursor = element("span", { class: "cursor", "aria-hidden": "true" });

function streamOf(event) {
  let stream = streams.get(event.request_id);
  if (!stream) {
    stream = {
      id: event.request_id, agent: event.agent, model: event.data.model || "", begun: event.timestamp,
      ended: null, end: "", chars: 0, node: element("span"),
    };
    streams.set(event.request_id, stream);
    const done = [...streams.values()].filter((each) => each.ended !== null);
    for (const old of done.slice(0, Math.max(0, streams.size - KEPT_STREAMS))) streams.delete(old.id);
    const current = streams.get(chosen);
    if (!current || current.ended !== null) chosen = stream.id;
  }
  return stream;
}

function append(stream, kind, text) {
  if (!text) return;
  let last = stream.node.lastChild;
  if (!last || last.className !== kind) {
    last = element("span", { class: kind }, document.createTextNode(""));
    stream.node.append(last);
  }
  last.firstChild.appendData(text);
  stream.chars += text.length;
  while (stream.chars > KEPT_CHARS) {
    const first = stream.node.firstChild;
    const surplus = Math.min(stream.chars - KEPT_CHARS + KEPT_CHARS / 4, first.firstChild.length);
    first.firstChild.deleteData(0, surplus);
    stream.chars -= surplus;
    if (!first.firstChild.length) first.remove();
  }
}

function follow(event) {
  if (!event.request_id) return;
  const { type, data } = event;
  if (type === "llm_request") streamOf(event);
  else if (type === "llm_stream_chunk") {
    const stream = streamOf(event);
    append(stream, "reasoning", data.reasoning);
    append(stream, "answer", data.text);
  } else if (type === "llm_response" || type === "llm_error") {
    const stream = streams.get(event.request_id);
    if (!stream) return;
    stream.ended = event.timestamp;
    stream.model = data.record?.model || stream.model;
    stream.end = type === "llm_response" ? "done" : data.record?.error_type || data.record?.status || "failed";
    if (!stream.chars) append(stream, "answer", data.text || data.partial_text);
  }
}

function streamName(stream) {
  return [stream.agent, stream.model].filter(Boolean).join(" on ") || stream.id;
}

function drawTabs() {
  const open = [...streams.values()].filter((stream) => stream.ended === null || stream.id === chosen);
  const place = byId("tabs");
  const wanted = open.length > 1 ? open : [];
  const key = JSON.stringify([chosen, ...wanted.map((stream) => [stream.id, streamName(stream)])]);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const focused = document.activeElement?.dataset?.stream;
  place.replaceChildren(...wanted.map((stream) => {
    const pressed = String(stream.id === chosen);
    const button = element("button", { type: "button", "aria-pressed": pressed, "data-stream": stream.id }, streamName(stream));
    button.addEventListener("click", () => { chosen = stream.id; draw(); });
    return button;
  }));
  if (focused) [...place.children].find((button) => button.dataset.stream === focused)?.focus();
}

function drawStream() {
  drawing = false;
  drawTabs();
  const stream = streams.get(chosen);
  if (!stream) return;
  const seconds = tenth.format((stream.ended ?? Date.now() / 1000) - stream.begun);
  const state = stream.ended === null ? `${seconds} s so far` : `${stream.end} after ${seconds} s`;
  byId("stream-head").textContent = `${streamName(stream)}: ${state}`;
  const place = byId("stream");
  const atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
  if (place.firstChild !== stream.node) place.replaceChildren(stream.node);
  if (stream.ended !== null) cursor.remove();
  else if (!cursor.isConnected) place.append(cursor);
  if (atEnd) place.scrollTop = place.scrollHeight;
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(drawStream);
}

// Other events, the newest first.

function told(event) {
  const { data } = event;
  const text = data.title || data.tool || data.path || data.task || data.text || data.error || data.summary || "";
  return String(text).slice(0, 200);
}

function note(event) {
  if (QUIET.has(event.type)) return;
  const place = byId("events");
  const what = [event.agent, told(event)].filter(Boolean).join(": ");
  place.prepend(element("li", {},
    element("time", {}, clock(event.timestamp)),
    element("span", {}, event.type.replaceAll("_", " ")),
    element("span", { class: "what", title: what }, what)));
  while (place.children.length > KEPT_EVENTS) place.lastChild.remove();
}

// The connection.

let heardAt = 0;
let lastSeq = null; // The last event that was seen.
let serverId = null;
let retryMs = 500;
let watchdog = null;

function setState(state, text) {
  byId("state").dataset.state = state;
  byId("state-text").textContent = text;
}

function heard() {
  heardAt = Date.now();
  showAge();
}

function showAge() {
  const place = byId("age");
  if (!heardAt) return;
  const age = Date.now() - heardAt;
  place.textContent = age < 1500 ? "data is current" : `data is ${whole.format(age / 1000)} s old`;
  place.classList.toggle("old", age > OLD_MS);
}

function forget() {
  streams.clear();
  chosen = null;
  byId("stream").replaceChildren();
  byId("events").replaceChildren();
}

function receive(message) {
  if (message.type === "hello") {
    if (serverId !== null && message.server_id !== serverId) forget();
    serverId = message.server_id;
    const missed = lastSeq !== null && message.resumed && message.missing;
    if (!message.resumed) lastSeq = 0;
    setState("live", missed ? `Live, ${whole.format(missed)} events missed` : "Live");
  } else if (message.type === "events") {
    for (const event of message.events) {
      lastSeq = Math.max(lastSeq ?? 0, event.seq);
      follow(event);
      note(event);
    }
    draw();
  }
}

function connect() {
  const query = lastSeq === null ? "?since=0" : `?since=${lastSeq}&server_id=${encodeURIComponent(serverId)}`;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws${query}`);
  const patience = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => socket.close(), OLD_MS);
  };
  patience();
  socket.addEventListener("message", (given) => {
    patience();
    heard();
    retryMs = 500;
    receive(JSON.parse(given.data));
  });
  socket.addEventListener("close", () => {
    clearTimeout(watchdog);
    setState("lost", "Connection lost, trying again …");
    setTimeout(connect, retryMs);
    retryMs = Math.min(10000, retryMs * 2);
  });
}

// Polling, only while somebody looks.

const shown = new Map();

async function poll(path, use) {
  try {
    const answer = await fetch(path, { cache: "no-cache" });
    if (answer.status === 401) {
      setState("lost", "A token is needed: open the link that agentfarm serve showed");
      return;
    }
    if (!answer.ok) return;
    const text = await answer.text();
    if (shown.get(path) !== text) use(JSON.parse(text));
    shown.set(path, text);
    heard();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
}

async function pollAll() {
  if (!document.hidden) {
    await Promise.all([
      poll("/api/hardware/performance", showPerformance),
      poll("/api/hardware", showHardware),
    ]);
  }
  setTimeout(pollAll, POLL_MS);
}

document.addEventListener("visibilitychange", showAge);
setInterval(() => { showAge(); draw(); }, 1000);
connect();
pollAll();
