// Calls to the service: the key, errors in words, server-sent events.

const KEY = "ragstone-key";

export class Refused extends Error {}

/** Fetch with the key, asking for one when the service does. Throws Refused with the reason. */
export async function request(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    const reason = await explain(response);
    if (response.status !== 401) throw new Refused(reason);
    await askForKey(key ? reason : "This service asks for a key.");
  }
}

/** Post JSON and yield {event, data} as they come. */
export async function* events(path, body, signal) {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (waiting + value).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

function parse(block) {
  const lines = block.split("\n");
  const field = (name) =>
    lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
  return { event: field("event"), data: JSON.parse(field("data")) };
}

async function explain(response) {
  try {
    const body = await response.json();
    return body.error?.message ?? body.detail ?? response.statusText;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

function askForKey(message) {
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key");
  document.getElementById("key-message").textContent = message;
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = input.value.trim();
        input.value = "";
        if (dialog.returnValue !== "save" || !key) {
          reject(new Refused("Without a key there is nothing to show. Reload to enter one."));
          return;
        }
        dialog.returnValue = "";
        sessionStorage.setItem(KEY, key);
        resolve();
      },
      { once: true },
    );
  });
}
