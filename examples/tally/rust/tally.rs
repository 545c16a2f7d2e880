//! Tally keeps count, sum, minimum and maximum of readings by name. The same
//! module is beside it in Go, C and AssemblyScript.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Instant;

const FILE: &str = "/state/tally";
const NAME_SIZE: usize = 32; // bytes, at most

/// What is kept of the readings of a name.
#[derive(Clone, Copy)]
struct Entry {
    count: i64,
    sum: i64,
    min: i32,
    max: i32,
}

type Tally = HashMap<String, Entry>;

// The module's state: it lives as long as its instance, and moves with it.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
static TALLY: LazyLock<Mutex<Tally>> = LazyLock::new(Mutex::default);

fn tally() -> MutexGuard<'static, Tally> {
    TALLY.lock().expect("calls are made one after the other")
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs once, before all calls. Without it the linker would have the C library
/// set up anew in each call.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    unsafe { __wasm_call_ctors() };
    LazyLock::force(&STARTED);
}

/// Reads the request, writes what `f` makes of it, and returns the status of the
/// call. An error goes to the log instead.
fn answer(f: impl FnOnce(&[u8]) -> Result<String, String>) -> i32 {
    let mut request = Vec::new();
    let answered = io::stdin()
        .read_to_end(&mut request)
        .map_err(|e| e.to_string())
        .and_then(|_| f(&request))
        .and_then(|response| write(&response).map_err(|e| e.to_string()));
    match answered {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}

/// Standard output keeps what comes after the last line until it is flushed.
fn write(response: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(response.as_bytes())?;
    out.flush()
}

/// Takes lines of a name and a whole number, and answers with the number of
/// readings so far. If a line is wrong, none is taken.
#[unsafe(no_mangle)]
pub extern "C" fn add() -> i32 {
    answer(|request| {
        let readings = parse(request)?;
        let mut tally = tally();
        for (name, value) in readings {
            let none = Entry {
                count: 0,
                sum: 0,
                min: value,
                max: value,
            };
            let e = tally.entry(name).or_insert(none);
            e.count += 1;
            e.sum += i64::from(value);
            e.min = e.min.min(value);
            e.max = e.max.max(value);
        }
        Ok(format!("{}\n", total(&tally).0))
    })
}

/// Answers with a line for each name: count, sum, minimum and maximum.
#[unsafe(no_mangle)]
pub extern "C" fn report() -> i32 {
    answer(|_| Ok(lines()))
}

/// NaN if there is no reading.
#[unsafe(no_mangle)]
pub extern "C" fn mean() -> f64 {
    let (count, sum) = total(&tally());
    sum as f64 / count as f64
}

/// The number of names with a reading above limit.
#[unsafe(no_mangle)]
pub extern "C" fn above(limit: i32) -> i64 {
    tally().values().filter(|e| e.max > limit).count() as i64
}

/// In milliseconds; never goes back.
#[unsafe(no_mangle)]
pub extern "C" fn uptime() -> i64 {
    STARTED.elapsed().as_millis() as i64
}

/// Writes the report to a file of the instance's own, whole or not at all.
#[unsafe(no_mangle)]
pub extern "C" fn save() -> i32 {
    answer(|_| {
        let new = format!("{FILE}.new");
        fs::write(&new, lines())
            .and_then(|()| fs::rename(&new, FILE))
            .map_err(|e| format!("cannot save: {e}"))?;
        Ok(String::new())
    })
}

/// Goes back to what was saved last.
#[unsafe(no_mangle)]
pub extern "C" fn load() -> i32 {
    answer(|_| {
        let saved = fs::read_to_string(FILE).map_err(|e| format!("cannot load: {e}"))?;
        let loaded: Option<Tally> = saved.lines().map(parse_entry).collect();
        *tally() = loaded.ok_or("cannot load: the file is damaged")?;
        Ok(String::new())
    })
}

fn parse(request: &[u8]) -> Result<Vec<(String, i32)>, String> {
    request
        .split_inclusive(|&b| b == b'\n')
        .enumerate()
        .map(|(i, line)| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            parse_reading(line).ok_or_else(|| format!("line {} is not a name and a number", i + 1))
        })
        .collect()
}

/// A name is printable ASCII without spaces.
fn parse_reading(line: &[u8]) -> Option<(String, i32)> {
    let (name, value) = str::from_utf8(line).ok()?.split_once(' ')?;
    if name.is_empty() || name.len() > NAME_SIZE || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    Some((name.to_owned(), value.parse().ok()?))
}

fn parse_entry(line: &str) -> Option<(String, Entry)> {
    let [name, count, sum, min, max] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let entry = Entry {
        count: count.parse().ok()?,
        sum: sum.parse().ok()?,
        min: min.parse().ok()?,
        max: max.parse().ok()?,
    };
    Some((name.to_owned(), entry))
}

fn total(tally: &Tally) -> (i64, i64) {
    tally
        .values()
        .fold((0, 0), |(count, sum), e| (count + e.count, sum + e.sum))
}

/// Sorted: a map has another order in each instance.
fn lines() -> String {
    let tally = tally();
    let mut sorted: Vec<_> = tally.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut out = String::new();
    for (name, e) in sorted {
        out += &format!("{name} {} {} {} {}\n", e.count, e.sum, e.min, e.max);
    }
    out
}
