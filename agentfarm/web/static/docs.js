// The operations of openapi.json, without anything from elsewhere.
"use strict";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function typeOf(schema, all) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((each) => typeOf(each, all)).join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, all)}`;
  return schema.type || "any";
}

function table(heads, rows) {
  const cells = (name, values) => element("tr", {}, ...values.map((value) => element(name, { class: "text" }, value)));
  return element("div", { class: "scroll", tabindex: "0" },
    element("table", {}, element("thead", {}, cells("th", heads)), element("tbody", {}, ...rows.map((row) => cells("td", row)))));
}

function bodyRows(schema, schemas) {
  const found = schemas[schema.$ref?.split("/").pop()] ?? schema;
  return Object.entries(found.properties ?? {}).map(([name, property]) => [
    name + (found.required?.includes(name) ? " (needed)" : ""), typeOf(property, schemas), property.description ?? "",
  ]);
}

function operation(method, path, found, schemas) {
  const made = element("details", { class: "operation" },
    element("summary", {}, element("code", {}, `${method.toUpperCase()} ${path}`), ` ${found.description ?? found.summary}`));
  const parameters = (found.parameters ?? []).map((each) => [
    each.name, each.in, typeOf(each.schema, schemas), each.description ?? each.schema?.description ?? "",
  ]);
  if (parameters.length) made.append(table(["parameter", "in", "type", ""], parameters));
  const body = found.requestBody?.content?.["application/json"]?.schema;
  if (body) made.append(table(["body", "type", ""], bodyRows(body, schemas)));
  const answers = Object.entries(found.responses).map(([status, answer]) => [
    status, typeOf(answer.content?.["application/json"]?.schema, schemas), answer.description,
  ]);
  made.append(table(["answer", "type", ""], answers));
  return made;
}

function draw(found) {
  document.getElementById("version").textContent = `version ${found.info.version}`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, each] of Object.entries(methods)) {
      const tag = each.tags?.[0] ?? "other";
      const group = groups.get(tag) ?? element("section", {}, element("h2", {}, tag));
      group.append(operation(method, path, each, found.components?.schemas ?? {}));
      groups.set(tag, group);
    }
  }
  const live = element("section", {}, element("h2", {}, "live stream"),
    element("p", {}, element("code", {}, "WS /ws"), " Every event as JSON; the guide to the API tells how to filter and resume."));
  document.getElementById("operations").replaceChildren(...groups.values(), live);
}

fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`status ${answer.status}`))))
  .then(draw)
  .catch((error) => { document.getElementById("state").textContent = `The document cannot be had: ${error.message}`; });
