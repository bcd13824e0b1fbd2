// Links and images of answers: only https, and only to hosts that the operator allows.

const WRITTEN = /(!?)\[([^\]\n]{0,300})\]\((https:\/\/[^\s()<>"']{1,2000})\)|https:\/\/[^\s()<>"'`\]]{1,2000}/g;
const TRAILING = /[.,;:!?*_]+$/;

/** Whether an address leads to an allowed host; `*.example.org` allows every host below it. */
export function isAllowed(address, hosts) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return false;
  }
  if (url.protocol !== "https:" || url.username || url.password) return false;
  return hosts.some((host) =>
    host.startsWith("*.") ? url.hostname.endsWith(host.slice(1)) : url.host === host,
  );
}

/** Return text as nodes: what may be followed or shown is, the rest stays the text that it was. */
export function rendered(text, hosts, { images = true } = {}) {
  if (!hosts.length) return [text];
  const nodes = [];
  let told = 0;
  for (const found of text.matchAll(WRITTEN)) {
    const [whole, bang, label, target] = found;
    const address = target ?? whole.replace(TRAILING, "");
    if (!isAllowed(address, hosts) || (bang && !images)) continue;
    const end = found.index + (target ? whole.length : address.length);
    nodes.push(text.slice(told, found.index), bang ? image(address, label) : link(address, label));
    told = end;
  }
  nodes.push(text.slice(told));
  return nodes;
}

function link(address, label) {
  const node = document.createElement("a");
  node.href = address;
  node.textContent = label || address;
  node.title = address;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

function image(address, label) {
  const node = document.createElement("img");
  node.src = address;
  node.alt = label;
  node.referrerPolicy = "no-referrer";
  node.loading = "lazy";
  return node;
}
