
"use strict";
const $ = id => document.getElementById(id);
const NUMBERS = ["speed", "temperature", "top_p", "repetition_penalty", "pitch", "volume"];
const LABELS = {voice: "Voice", seed: "Seed", speed: "Speed", temperature: "Temperature", top_p: "Top-p",
  repetition_penalty: "Repetition penalty", pitch: "Pitch", volume: "Volume", response_format: "File"};
const USUAL = Object.fromEntries(NUMBERS.map(name => [name, Number($(name).defaultValue)]));
const takes = [];
let running = null, count = 0, mostCharacters = 4096, sound = null;

const stored = name => { try { return sessionStorage.getItem(name) || ""; } catch { return ""; } };
const store = (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* private mode */ } };
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function headers() {
  const key = $("key").value.trim();
  return key ? {authorization: `Bearer ${key}`} : {};
}

function complain(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function reason(response) {
  let message = "";
  try { message = (await response.json()).error.message; } catch { /* no JSON: a proxy's page, say */ }
  if (response.status === 401) { askForKey(); message = "The API key is missing or wrong."; }
  const wait = response.headers.get("retry-after");
  return `${message || "The server answered with an error."} (${response.status}${wait ? `, again in ${wait} s` : ""})`;
}

function askForKey() {
  $("key-field").hidden = false;
  $("key").focus();
}

async function look() {
  let again = 5000;
  try {
    const response = await fetch("/health", {headers: headers()});
    const told = await response.json();
    if (told.needs_key) $("key-field").hidden = false;
    if (told.most_characters) { mostCharacters = told.most_characters; countCharacters(); }
    const queue = told.waiting ? `, ${told.waiting} waiting` : "";
    const states = {ready: told.model ? `${told.model} is ready${queue}` : "ready; enter the API key",
      loading: "The model is being loaded …", closing: "The server is shutting down."};
    $("state").textContent = states[told.status] || told.status;
    if (told.status === "ready" && told.model && !$("voice").dataset.known) await listVoices();
    if (told.status === "loading") again = 1000;
  } catch {
    $("state").textContent = "The server does not answer.";
  }
  setTimeout(look, again);
}

async function listVoices() {
  const response = await fetch("/v1/voices", {headers: headers()});
  if (!response.ok) return;
  const chosen = $("voice").value, rows = (await response.json()).data;
  $("voice").replaceChildren(...rows.map(row => new Option(row.id, row.id)));
  if (rows.some(row => row.id === chosen)) $("voice").value = chosen;
  $("voice").dataset.known = "yes";
}

function countCharacters() {
  const length = [...$("input").value].length;
  $("count").textContent = `${length} of ${mostCharacters} characters`;
  return length;
}

function settings() {
  const found = {input: $("input").value, voice: $("voice").value, response_format: $("response_format").value};
  found.seed = Number($("seed").value);
  for (const name of NUMBERS) found[name] = Number($(name).value);
  return found;
}

function problem(asked) {
  const length = countCharacters();
  if (!/^[!-~]*$/.test($("key").value.trim())) return ["key", "The API key has letters that no key has."];
  if (!asked.input.trim()) return ["input", "There is nothing to say: type a text."];
  if (length > mostCharacters) return ["input", `The text has ${length} characters; at most ${mostCharacters} are spoken at once.`];
  for (const name of ["seed", ...NUMBERS]) {
    const field = $(name);
    if (field.value === "" || field.validity.badInput || asked[name] < Number(field.min) || asked[name] > Number(field.max)
        || (name === "seed" && !Number.isInteger(asked[name])))
      return [name, `${LABELS[name]} must be ${name === "seed" ? "a whole number " : ""}from ${field.min} to ${field.max}.`];
  }
  return null;
}

async function speak(asked) {
  if (running) return;
  complain("");
  const wrong = problem(asked);
  if (wrong) {
    const more = $(wrong[0]).closest("details");
    if (more) more.open = true;
    complain(wrong[1]);
    $(wrong[0]).focus();
    return;
  }
  running = new AbortController();
  $("progress").textContent = "Waiting for the first sound …";
  const started = performance.now(), live = asked.response_format === "wav" ? new LivePlayer() : null;
  let answered = false;
  enable();
  try {
    const response = await fetch("/v1/audio/speech", {method: "POST", signal: running.signal, body: JSON.stringify(asked),
      headers: {"content-type": "application/json", ...headers()}});
    answered = true;
    if (!response.ok) { if (live) live.stop(); complain(await reason(response)); return; }
    const {parts, first} = await collect(response, live, started);
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    if (asked.response_format === "wav") completeWav(bytes);
    const type = response.headers.get("content-type").split(";")[0];
    addTake(asked, new Blob([bytes], {type}), first, (performance.now() - started) / 1000, live !== null);
  } catch (error) {
    if (live) live.stop();
    if (error.name !== "AbortError") complain(answered ? "The connection broke off before the end. The server's log says why."
      : "The server does not answer. Is it still running?");
  } finally {
    running = null;
    if (live) live.end();
    $("progress").textContent = "";
    enable();
  }
}

function enable() {
  $("speak").disabled = running !== null;
  $("stop").disabled = running === null && sound === null;
}

async function collect(response, live, started) {
  const reader = response.body.getReader(), parts = [];
  let first = 0, size = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    first = first || (performance.now() - started) / 1000;
    parts.push(piece.value); size += piece.value.length;
    if (live) live.feed(piece.value);
    $("progress").textContent = `Speaking … ${Math.round(size / 1000)} kB, first sound after ${first.toFixed(1)} s`;
  }
  return {parts, first};
}

// Plays 16-bit mono WAV while it arrives: each piece is scheduled where the one before ends.
class LivePlayer {
  constructor() {
    if (sound) sound.stop();
    sound = this;
    pauseAll();
    this.context = new AudioContext();
    this.rest = new Uint8Array(0); this.rate = 0; this.next = 0;
  }
  feed(bytes) {
    const all = new Uint8Array(this.rest.length + bytes.length);
    all.set(this.rest); all.set(bytes, this.rest.length);
    let start = 0;
    if (!this.rate) {
      if (all.length < 44) { this.rest = all; return; }
      this.rate = new DataView(all.buffer).getUint32(24, true);
      start = 44;
    }
    const samples = (all.length - start) >> 1, view = new DataView(all.buffer, start);
    this.rest = all.slice(start + 2 * samples);
    if (!samples || this.context.state === "closed") return;
    const buffer = this.context.createBuffer(1, samples, this.rate), channel = buffer.getChannelData(0);
    for (let i = 0; i < samples; i++) channel[i] = view.getInt16(2 * i, true) / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer; source.connect(this.context.destination);
    this.next = Math.max(this.next, this.context.currentTime + .05);
    source.start(this.next);
    this.next += buffer.duration;
  }
  end() {
    if (this.context.state !== "closed")
      this.ending = setTimeout(() => this.stop(), 1000 * Math.max(0, this.next - this.context.currentTime) + 200);
  }
  stop() {
    clearTimeout(this.ending);
    if (this.context.state !== "closed") this.context.close();
    if (sound === this) sound = null;
    enable();
  }
}

// A streamed WAV does not know its length; a file should.
function completeWav(bytes) {
  const view = new DataView(bytes.buffer);
  view.setUint32(4, bytes.length - 8, true);
  view.setUint32(40, bytes.length - 44, true);
}

function addTake(asked, blob, first, spent, heard) {
  const number = ++count, node = $("take").content.firstElementChild.cloneNode(true), audio = node.querySelector("audio");
  const url = URL.createObjectURL(blob), take = {number, asked, node, url, blob};
  node.querySelector("h3").textContent = `Take ${number}`;
  node.setAttribute("aria-label", `Take ${number}`);
  node.querySelector("blockquote").textContent = asked.input;
  audio.src = url;
  audio.setAttribute("aria-label", `Play take ${number}`);
  audio.addEventListener("play", () => { pauseAll(audio); node.classList.add("playing"); });
  for (const name of ["pause", "ended"]) audio.addEventListener(name, () => node.classList.remove("playing"));
  audio.addEventListener("loadedmetadata", () => { take.seconds = audio.duration; describe(); });
  audio.addEventListener("error", () => complain(`This browser cannot play take ${number}; download it instead.`));
  take.facts = {"First sound": `${first.toFixed(2)} s`, "Took": `${spent.toFixed(1)} s`, "Size": `${Math.ceil(blob.size / 1000)} kB`};
  const link = node.querySelector("a");
  link.href = url;
  link.download = `take_${number}_${asked.voice.replace(/[^\p{L}\p{N}_-]/gu, "_")}_seed_${asked.seed}.${asked.response_format}`;
  link.setAttribute("aria-label", `Download take ${number}`);
  node.querySelector(".again").addEventListener("click", () => { const seed = newSeed(); $("seed").value = seed; speak({...asked, seed}); });
  node.querySelector(".use").addEventListener("click", () => use(asked));
  node.querySelector(".remove").addEventListener("click", () => remove(take));
  takes.push(take);
  $("takes").prepend(node);
  describe();
  if ($("fresh").checked) $("seed").value = newSeed();
  if (!heard) audio.play().catch(() => { /* the browser wants a click first */ });
}

// Settings of each take; what is not the same in all of them stands out.
function describe() {
  const shown = Object.keys(LABELS).filter(name => ["voice", "seed", "speed"].includes(name)
    || takes.some(take => take.asked[name] !== USUAL[name] && name !== "response_format")
    || (name === "response_format" && takes.some(take => take.asked[name] !== "wav")));
  for (const take of takes) {
    const rows = [];
    const add = (name, value, differs) => {
      for (const [tag, text] of [["dt", name], ["dd", value]]) {
        const cell = document.createElement(tag);
        cell.textContent = text;
        if (differs) cell.className = "differs";
        rows.push(cell);
      }
    };
    for (const name of shown) add(LABELS[name], take.asked[name], takes.some(other => other.asked[name] !== take.asked[name]));
    if (take.seconds) add("Length", `${take.seconds.toFixed(2)} s`, false);
    for (const [name, value] of Object.entries(take.facts)) add(name, value, false);
    take.node.querySelector("dl").replaceChildren(...rows);
  }
  $("none").hidden = takes.length > 0;
  $("clear").hidden = takes.length === 0;
}

function use(asked) {
  for (const name of ["input", "voice", "seed", "response_format", ...NUMBERS]) $(name).value = asked[name];
  $("fresh").checked = false;
  countCharacters();
  $("input").focus();
}

function remove(take) {
  const place = takes.indexOf(take);
  takes.splice(place, 1);
  take.node.remove();
  URL.revokeObjectURL(take.url);
  describe();
  const next = takes[Math.min(place, takes.length - 1)];
  (next ? next.node : $("input")).focus();
}

function pauseAll(but) {
  if (but && sound) sound.stop();
  for (const audio of document.querySelectorAll("audio")) if (audio !== but) audio.pause();
}

function stop() {
  if (running) running.abort();
  if (sound) sound.stop();
}

$("form").addEventListener("submit", event => { event.preventDefault(); speak(settings()); });
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => { while (takes.length) remove(takes[0]); });
$("input").addEventListener("input", countCharacters);
$("key").addEventListener("change", () => { store("key", $("key").value.trim()); complain(""); listVoices(); });
addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); speak(settings()); }
  if (event.key === "Escape") stop();
});
$("key").value = stored("key");
$("seed").value = newSeed();
countCharacters();
look();
