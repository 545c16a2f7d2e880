// Tally keeps count, sum, minimum and maximum of readings by name. The same
// module is beside it in Go, C and Rust.

import { STDERR, STDIN, STDOUT, monotonic, readAll, readFile, rename, writeAll, writeFile } from "./wasi";

const FILE = "/state/tally";
const NAME_SIZE = 32; // bytes, at most

// Entry is what is kept of the readings of a name.
class Entry {
  constructor(public count: i64, public sum: i64, public min: i32, public max: i32) {}

  add(value: i32): void {
    this.count++;
    this.sum += value;
    this.min = min(this.min, value);
    this.max = max(this.max, value);
  }

  line(name: string): string {
    return `${name} ${this.count} ${this.sum} ${this.min} ${this.max}`;
  }
}

class Reading {
  constructor(public name: string, public value: i32) {}
}

// The module's state: it lives as long as its instance, and moves with it.
const started = monotonic();
let tally = new Map<string, Entry>();

// add takes lines of a name and a whole number, and answers with the number of
// readings so far. If a line is wrong, none is taken.
export function add(): i32 {
  const request = readAll(STDIN);
  if (!request) return failed("cannot read the request");
  const readings: Reading[] = [];
  const wrong = parse(request, readings);
  if (wrong) return failed(`line ${wrong} is not a name and a number`);
  for (let i = 0; i < readings.length; i++) {
    const name = readings[i].name, value = readings[i].value;
    if (!tally.has(name)) tally.set(name, new Entry(0, 0, value, value));
    tally.get(name).add(value);
  }
  return answer(`${count()}\n`);
}

// report answers with a line for each name: count, sum, minimum and maximum.
export function report(): i32 {
  return answer(lines());
}

// mean is NaN if there is no reading.
export function mean(): f64 {
  const entries = tally.values();
  let sum: i64 = 0;
  for (let i = 0; i < entries.length; i++) sum += entries[i].sum;
  return <f64>sum / <f64>count();
}

// above is the number of names with a reading above limit.
export function above(limit: i32): i64 {
  const entries = tally.values();
  let names: i64 = 0;
  for (let i = 0; i < entries.length; i++) names += i64(entries[i].max > limit);
  return names;
}

// uptime is in milliseconds, and never goes back.
export function uptime(): i64 {
  return (monotonic() - started) / 1_000_000;
}

// save writes the report to a file of the instance's own, whole or not at all.
export function save(): i32 {
  if (writeFile(FILE + ".new", lines()) && rename(FILE + ".new", FILE)) return 0;
  return failed("cannot save");
}

// load goes back to what was saved last.
export function load(): i32 {
  const saved = readFile(FILE);
  if (!saved) return failed("cannot load");
  const loaded = new Map<string, Entry>();
  const text = String.UTF8.decode(saved.slice().buffer).split("\n");
  for (let i = 0; i < text.length - 1; i++) {
    const f = text[i].split(" ");
    if (f.length != 5) return failed("cannot load: the file is damaged");
    const entry = new Entry(I64.parseInt(f[1]), I64.parseInt(f[2]), I32.parseInt(f[3]), I32.parseInt(f[4]));
    if (entry.line(f[0]) != text[i]) return failed("cannot load: the file is damaged");
    loaded.set(f[0], entry);
  }
  tally = loaded;
  return 0;
}

function answer(response: string): i32 {
  return writeAll(STDOUT, response) ? 0 : 1;
}

function failed(why: string): i32 {
  writeAll(STDERR, why + "\n");
  return 1;
}

function count(): i64 {
  const entries = tally.values();
  let count: i64 = 0;
  for (let i = 0; i < entries.length; i++) count += entries[i].count;
  return count;
}

function lines(): string {
  const names = tally.keys().sort(), out: string[] = [];
  for (let i = 0; i < names.length; i++) out.push(tally.get(names[i]).line(names[i]) + "\n");
  return out.join("");
}

// parse returns the number of the first wrong line, or 0. It works on bytes:
// what is not UTF-8 would become other text without a word.
function parse(request: Uint8Array, readings: Reading[]): i32 {
  for (let line = 1, at = 0; at < request.length; line++) {
    let end = request.indexOf(c("\n"), at);
    if (end < 0) end = request.length;
    const reading = parseReading(request.subarray(at, end));
    if (!reading) return line;
    readings.push(reading);
    at = end + 1;
  }
  return 0;
}

// A name is printable ASCII without spaces.
function parseReading(line: Uint8Array): Reading | null {
  const space = line.indexOf(c(" "));
  if (space < 1 || space > NAME_SIZE) return null;
  for (let i = 0; i < space; i++) {
    if (line[i] < c("!") || line[i] > c("~")) return null;
  }
  const value = parseNumber(line, space + 1);
  if (value < i32.MIN_VALUE || value > i32.MAX_VALUE) return null;
  return new Reading(String.UTF8.decodeUnsafe(line.dataStart, space), <i32>value);
}

// parseNumber returns what no i32 can hold if there is no number.
function parseNumber(line: Uint8Array, at: i32): i64 {
  const negative = at < line.length && line[at] == c("-");
  if (negative || at < line.length && line[at] == c("+")) at++;
  if (at == line.length) return i64.MAX_VALUE;
  let value: i64 = 0;
  for (; at < line.length; at++) {
    const digit = line[at] - c("0");
    if (digit > 9 || value > i32.MAX_VALUE) return i64.MAX_VALUE;
    value = 10 * value + digit;
  }
  return negative ? -value : value;
}

// @ts-ignore: decorator
@inline
function c(character: string): u8 {
  return <u8>character.charCodeAt(0);
}
