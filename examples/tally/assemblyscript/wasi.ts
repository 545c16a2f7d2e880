// What a module needs of WASI preview 1: files, the log and a clock. What they
// return is an errno, 0 is success; results are left in memory.

@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: i32, vectors: usize, count: i32, size: usize): i32;
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: i32, vectors: usize, count: i32, size: usize): i32;
@external("wasi_snapshot_preview1", "fd_close")
declare function fd_close(fd: i32): i32;
@external("wasi_snapshot_preview1", "path_open")
declare function path_open(folder: i32, lookup: i32, path: usize, length: i32, how: i32,
  rights: i64, inherited: i64, flags: i32, fd: usize): i32;
@external("wasi_snapshot_preview1", "path_rename")
declare function path_rename(folder: i32, from: usize, fromLength: i32, toFolder: i32, to: usize, toLength: i32): i32;
@external("wasi_snapshot_preview1", "clock_time_get")
declare function clock_time_get(clock: i32, precision: i64, time: usize): i32;

export const STDIN = 0, STDOUT = 1, STDERR = 2;
const ROOT = 3; // the folder that holds /state, /dev, /link and /models
const READ: i64 = 1 << 1, WRITE: i64 = 1 << 6; // rights
const CREATE = 1, TRUNCATE = 8;
const MONOTONIC = 1;

// The vector of a read or write at 0 (address, length), a result at 8.
const scratch = memory.data(16, 8);

// readAll returns what is left of a file, or null if it cannot be read.
export function readAll(fd: i32): Uint8Array | null {
  let bytes = new Uint8Array(4096), length = 0;
  while (true) {
    if (length == bytes.length) {
      const larger = new Uint8Array(2 * length);
      larger.set(bytes);
      bytes = larger;
    }
    store<usize>(scratch, bytes.dataStart + length);
    store<i32>(scratch, bytes.length - length, 4);
    if (fd_read(fd, scratch, 1, scratch + 8) != 0) return null;
    const size = load<i32>(scratch, 8);
    if (size == 0) return bytes.subarray(0, length);
    length += size;
  }
}

// writeAll reports whether all of the text was written.
export function writeAll(fd: i32, text: string): bool {
  const bytes = Uint8Array.wrap(String.UTF8.encode(text));
  for (let done = 0; done < bytes.length; done += load<i32>(scratch, 8)) {
    store<usize>(scratch, bytes.dataStart + done);
    store<i32>(scratch, bytes.length - done, 4);
    if (fd_write(fd, scratch, 1, scratch + 8) != 0) return false;
  }
  return true;
}

// readFile returns null if there is no such file.
export function readFile(path: string): Uint8Array | null {
  const fd = open(path, 0, READ);
  if (fd < 0) return null;
  const bytes = readAll(fd);
  fd_close(fd);
  return bytes;
}

// writeFile reports whether the file now holds the text, and nothing else.
export function writeFile(path: string, text: string): bool {
  const fd = open(path, CREATE | TRUNCATE, WRITE);
  if (fd < 0) return false;
  const written = writeAll(fd, text);
  return fd_close(fd) == 0 && written;
}

export function rename(from: string, to: string): bool {
  const f = relative(from), t = relative(to);
  return path_rename(ROOT, changetype<usize>(f), f.byteLength, ROOT, changetype<usize>(t), t.byteLength) == 0;
}

// monotonic is in nanoseconds from a time that means nothing.
export function monotonic(): i64 {
  clock_time_get(MONOTONIC, 1, scratch + 8);
  return load<i64>(scratch, 8);
}

// abort is where the compiler leads what goes wrong: --use abort=wasi/abort.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  writeAll(STDERR, `${message ? message : "abort"} at ${file ? file : ""}:${line}:${column}\n`);
  unreachable();
}

function open(path: string, how: i32, rights: i64): i32 {
  const p = relative(path);
  const errno = path_open(ROOT, 0, changetype<usize>(p), p.byteLength, how, rights, 0, 0, scratch + 8);
  return errno == 0 ? load<i32>(scratch, 8) : -1;
}

// relative is a path as WASI wants it, from a folder that is open.
function relative(path: string): ArrayBuffer {
  return String.UTF8.encode(path.substring(1));
}
