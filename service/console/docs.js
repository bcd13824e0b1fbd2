// The API's description, read from /openapi.json; nothing is fetched from elsewhere.

import { request } from "./api.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("operations");

function element(tag, { text, name } = {}, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

function resolve(schema, components) {
  const name = schema?.$ref?.split("/").pop();
  return name ? components.schemas[name] : schema ?? {};
}

function typeOf(schema) {
  if (!schema) return "anything";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "anything";
}

function fieldTable(rows) {
  const table = element("table", {}, element("tbody"));
  for (const { field, type, required, text } of rows) {
    const label = element("th", {}, element("code", { text: field }));
    if (required) label.append(element("span", { name: "required", text: "required" }));
    const details = element("td", {}, element("code", { text: type }));
    if (text) details.append(element("p", { text }));
    table.tBodies[0].append(element("tr", {}, label, details));
  }
  return table;
}

function operation(method, path, about, components) {
  const summary = element(
    "summary",
    {},
    element("span", { name: `method ${method}`, text: method.toUpperCase() }),
    element("code", { text: path }),
    element("span", { name: "summary", text: about.description?.split("\n")[0] ?? about.summary ?? "" }),
  );
  const details = element("details", {}, summary);
  const more = about.description?.split("\n").slice(1).join("\n").trim();
  if (more) details.append(element("p", { text: more }));
  const parameters = about.parameters ?? [];
  if (parameters.length) {
    details.append(element("h3", { text: "Parameters" }));
    details.append(
      fieldTable(
        parameters.map((parameter) => ({
          field: parameter.name,
          type: `${typeOf(parameter.schema)} (${parameter.in})`,
          required: parameter.required,
          text: parameter.description,
        })),
      ),
    );
  }
  for (const [mediaType, { schema }] of Object.entries(about.requestBody?.content ?? {})) {
    const body = resolve(schema, components);
    details.append(element("h3", { text: `Body: ${mediaType}` }));
    details.append(
      fieldTable(
        Object.entries(body.properties ?? {}).map(([field, property]) => ({
          field,
          type: typeOf(property),
          required: body.required?.includes(field),
          text: property.description,
        })),
      ),
    );
  }
  return details;
}

async function load() {
  const { paths, components } = await (await request("/openapi.json")).json();
  const groups = new Map();
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of METHODS.filter((name) => operations[name])) {
      const about = operations[method];
      const tag = about.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(method, path, about, components));
    }
  }
  main.replaceChildren(
    ...[...groups].map(([tag, operations]) => element("section", {}, element("h2", { text: tag }), ...operations)),
  );
}

load().catch((error) => main.replaceChildren(element("p", { text: error.message })));
