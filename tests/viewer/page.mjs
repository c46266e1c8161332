// A page without a browser: just what the scripts of a report ask of one.

import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { deflateSync } from "node:zlib";

const FILES = new URL("../../medddpm/report/files/", import.meta.url);

export class Element {
  constructor(id = "") {
    Object.assign(this, { id, hidden: true, disabled: true, value: "", textContent: "" });
    Object.assign(this, { dataset: {}, attributes: {}, styles: {}, heard: {}, said: [] });
    this.style = { setProperty: (name, value) => { this.styles[name] = value; } };
  }
  addEventListener(kind, hear) { (this.heard[kind] ??= []).push(hear); }
  send(kind, more = {}) {
    const event = { target: this, preventDefault() {}, stopPropagation() {}, ...more };
    for (const hear of this.heard[kind] ?? []) hear(event);
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  append(...parts) { this.said.push(...parts); }
  scrollIntoView() {}
  focus() {}
  getContext() { return {}; }
}

// The globals of a page; elements are made when they are first asked for.
export function page({ places = [], more = {} } = {}) {
  const found = {};
  const byId = (id) => (found[id] ??= new Element(id));
  const buttons = places.map((mm) => Object.assign(new Element(), { dataset: { mm } }));
  const radios = {};
  const document = {
    body: new Element("body"),
    getElementById: byId,
    createElement: () => new Element(),
    querySelector: (text) => (radios[text] ??= new Element(text)),
    querySelectorAll: (text) => (text === "button.place" ? buttons : []),
  };
  const frames = [];
  const globals = {
    document, atob, Blob, Response, DecompressionStream, console: { error() {} },
    requestAnimationFrame: (action) => frames.push(action), ...more,
  };
  const nextFrame = () => frames.splice(0).map((action) => action()).length;
  return { $: byId, buttons, radios, document, nextFrame, globals };
}

export async function run(name, { globals }) {
  await runInContext(readFileSync(new URL(name, FILES), "utf8"), createContext(globals));
}

export const packed = (bytes) => deflateSync(Buffer.from(bytes)).toString("base64");
