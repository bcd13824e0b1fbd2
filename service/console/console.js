// The chat page: ask, watch the answer come, open what it cites.
// Text from documents and questions is only ever set as textContent; see links.js for the exception.

import { events, request } from "./api.js";
import { rendered } from "./links.js";

const TURNS_SENT = 12;
const byId = (id) => document.getElementById(id);
const [log, select, question, send, stop] = ["log", "collection", "question", "send", "stop"].map(byId);
const turns = [];
let running = null;
let opened = null;
let linkHosts = [];

function element(tag, { text, name, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

async function loadCollections() {
  let after = "";
  do {
    const response = await request(`/v1/vector_stores?limit=100&order=asc${after && `&after=${after}`}`);
    const page = await response.json();
    for (const store of page.data) {
      const files = store.file_counts.completed;
      const label = `${store.name} (${files} ${files === 1 ? "document" : "documents"})`;
      select.append(element("option", { text: label, value: store.id }));
    }
    after = page.has_more ? page.last_id : "";
  } while (after);
  const known = sessionStorage.getItem("ragstone-collection");
  if ([...select.options].some((option) => option.value === known)) select.value = known;
  const isEmpty = select.options.length === 0;
  select.disabled = question.disabled = send.disabled = isEmpty;
  if (isEmpty) {
    byId("hint").textContent = "There is no collection yet. Make one in the terminal: ragstone ingest FOLDER";
  } else {
    question.focus();
  }
}

async function ask(text) {
  byId("empty").hidden = true;
  log.append(element("li", { name: "asked" }, element("p", { text })));
  const view = new AnswerView();
  log.append(view.root);
  view.root.scrollIntoView({ block: "end" });
  running = new AbortController();
  setBusy(true);
  try {
    const body = { question: text, collection: select.value, history: turns.slice(-TURNS_SENT), stream: true };
    for await (const { event, data } of events("/v1/answers", body, running.signal)) view.take(event, data);
    if (view.text) {
      turns.push({ role: "user", content: text }, { role: "assistant", content: view.text });
    }
    if (!view.isDone) view.fail("The answer broke off. Ask again.");
  } catch (error) {
    view.fail(error.name === "AbortError" ? "Stopped." : error.message);
  } finally {
    running = null;
    setBusy(false);
  }
}

function setBusy(isBusy) {
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  select.disabled = isBusy;
  if (!isBusy) question.focus();
}

/** One answer: told while it comes, drawn again whenever a citation joins it. */
class AnswerView {
  constructor() {
    this.text = "";
    this.isDone = false;
    this.citations = [];
    this.passages = [];
    this.unsupported = [];
    this.body = element("div", { name: "text" });
    this.status = element("p", { name: "status", text: "Searching the documents…" });
    this.root = element("li", { name: "answer" }, this.body, this.status);
  }

  take(event, data) {
    const handlers = {
      retrieved: () => {
        this.passages = data.passages;
        this.status.textContent = "Reading…";
      },
      text: () => {
        this.text += data.text;
      },
      citation: () => this.citations.push(data),
      done: () => this.finish(data),
      error: () => this.fail(data.error.message),
    };
    handlers[event]?.();
    this.draw();
    if (log.lastElementChild === this.root) this.root.scrollIntoView({ block: "end" });
  }

  finish(answer) {
    this.isDone = true;
    this.text = answer.text;
    this.citations = answer.citations;
    this.passages = answer.passages;
    this.unsupported = answer.unsupported;
    const seconds = (answer.timings_ms.total / 1000).toFixed(2);
    const facts = [`${seconds} s`, `${answer.passages.length} passages read`, answer.engine];
    if (answer.finish_reason === "length") facts.push("cut at the length limit");
    const screened = answer.left_out.screened ?? 0;
    if (screened) facts.push(`${screened} left out: they hold instructions`);
    this.status.textContent = facts.join(" · ");
    if (!answer.answerable) {
      this.root.classList.add("abstained");
      const reason = answer.reason && answer.reason !== answer.text ? answer.reason : "";
      this.root.prepend(element("p", { name: "verdict", text: "Not in the documents" }));
      if (reason) this.body.after(element("p", { name: "reason", text: reason }));
    }
  }

  fail(message) {
    this.isDone = true;
    this.root.classList.add("failed");
    this.status.textContent = message;
    this.status.setAttribute("role", "alert");
  }

  draw() {
    // Spans count code points; a JavaScript string counts UTF-16 units.
    const characters = Array.from(this.text);
    const numbered = this.citations.map((citation, at) => ({ citation, number: at + 1 }));
    const ends = [...new Set(numbered.map(({ citation }) => citation.answer_end))].sort((a, b) => a - b);
    const nodes = [];
    let told = 0;
    for (const end of ends) {
      nodes.push(...this.stretch(characters, told, end));
      const here = numbered.filter(({ citation }) => citation.answer_end === end);
      nodes.push(...here.map(({ citation, number }) => this.marker(citation, number)));
      // An engine's own markers, such as [2], are what the buttons stand for.
      const written = /^(?:\s?\[\d{1,3}\])+/.exec(characters.slice(end, end + 40).join(""));
      told = Math.max(told, end + (written?.[0].length ?? 0));
    }
    nodes.push(...this.stretch(characters, told, characters.length));
    this.body.replaceChildren(...nodes);
  }

  /** A part of the text, with what no passage carries set apart. */
  stretch(characters, start, end) {
    const nodes = [];
    const say = (from, to) => rendered(characters.slice(from, to).join(""), linkHosts, { images: this.isDone });
    let told = start;
    for (const span of this.unsupported) {
      const [from, to] = [Math.max(told, span.start), Math.min(end, span.end)];
      if (from >= to) continue;
      nodes.push(...say(told, from), element("span", { name: "unsupported", title: "No passage carries this" }, ...say(from, to)));
      told = to;
    }
    return [...nodes, ...say(told, end)];
  }

  marker(citation, number) {
    const label = `Citation ${number}: ${citation.title}`;
    const button = element("button", { type: "button", name: "cite", text: number, "aria-label": label, title: citation.title });
    button.addEventListener("click", () => openEvidence(citation, this.passages, button));
    return button;
  }
}

function openEvidence(citation, passages, button) {
  const holds = (passage) =>
    passage.document_id === citation.document_id &&
    passage.start_char <= citation.start_char &&
    citation.end_char <= passage.end_char;
  const passage = passages.find(holds) ?? { text: citation.text, start_char: citation.start_char, heading: "" };
  const characters = Array.from(passage.text);
  const start = citation.start_char - passage.start_char;
  const end = citation.end_char - passage.start_char;
  const place = [passage.heading, citation.page && `page ${citation.page}`, `characters ${citation.start_char}–${citation.end_char}`];
  byId("evidence-title").textContent = citation.title || citation.source;
  byId("evidence-place").textContent = place.filter(Boolean).join(" · ");
  byId("evidence-text").replaceChildren(
    characters.slice(0, start).join(""),
    element("mark", { text: characters.slice(start, end).join("") }),
    characters.slice(end).join(""),
  );
  byId("evidence-support").textContent = `Support ${Math.round(citation.support * 100)} % · ${readable(citation.source)}`;
  opened?.classList.remove("open");
  opened = button;
  button.classList.add("open");
  byId("evidence").hidden = false;
  byId("evidence-title").focus();
  byId("evidence-text").querySelector("mark").scrollIntoView({ block: "center" });
}

function readable(source) {
  try {
    return decodeURI(source);
  } catch {
    return source; // a file name may hold a lone %
  }
}

function closeEvidence() {
  if (byId("evidence").hidden) return;
  byId("evidence").hidden = true;
  opened?.classList.remove("open");
  if (opened?.isConnected) opened.focus();
  opened = null;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  question.style.height = "";
  ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
question.addEventListener("input", () => {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
});
stop.addEventListener("click", () => running?.abort());
byId("close").addEventListener("click", closeEvidence);
byId("clear").addEventListener("click", () => {
  running?.abort();
  turns.length = 0;
  log.replaceChildren();
  closeEvidence();
  byId("empty").hidden = false;
  question.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeEvidence();
});
select.addEventListener("change", () => {
  sessionStorage.setItem("ragstone-collection", select.value);
  byId("clear").click();
});
async function loadSettings() {
  const response = await fetch("/console/settings.json");
  if (response.ok) linkHosts = (await response.json()).link_hosts;
}

loadSettings().catch(() => {}); // without them no link can be followed
loadCollections().catch((error) => {
  byId("hint").textContent = error.message;
  byId("hint").setAttribute("role", "alert");
});
