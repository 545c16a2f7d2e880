#!/bin/sh
# What `rustup target add wasm32-wasip1` gives, for the rustc of Debian 12: builds
# the standard library from its source (half a minute), and lays it where rustc
# looks for it. It needs rustc-web, cargo-web, rust-web-src, lld and wasi-libc.
set -eu
root=$(/usr/bin/rustc --print sysroot)/lib/rustlib
host=$(/usr/bin/rustc --print host-tuple)
target=$root/wasm32-wasip1/lib
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Cargo builds the library only as a part of something: an empty crate.
cd "$work"
mkdir src
touch src/lib.rs
printf '[package]\nname = "nothing"\n' >Cargo.toml
RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTFLAGS=-Cembed-bitcode=yes \
  /usr/bin/cargo build --quiet --offline --release --target wasm32-wasip1 -Zbuild-std=std,panic_abort \
  --config 'source.crates-io.replace-with="debian"' \
  --config "source.debian.directory=\"$root/src/rust/library/vendor\""
rm target/wasm32-wasip1/release/deps/libnothing-*

mkdir -p "$target/self-contained" "$root/$host/bin"
cp target/wasm32-wasip1/release/deps/*.rlib "$target"
cp /usr/lib/wasm32-wasi/crt1-*.o /usr/lib/wasm32-wasi/libc.a "$target/self-contained"
ln -sf "$(command -v wasm-ld)" "$root/$host/bin/rust-lld"
