# decant: `make demo` shows it, `make test` tests it, `make help` lists the rest.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w
# What keeps the device program small: it speaks HTTP/1.1 only, and code that is
# seldom run (names on the network, configuration, the API's description,
# handshakes, compiling), or is no faster for it, is not spread out.
SELDOM := github.com/miekg/dns github.com/betamos/... golang.org/x/net/... go.yaml.in/... sigs.k8s.io/... github.com/danielgtaylor/... \
  debug/dwarf encoding/asn1 crypto/x509 crypto/tls math/big net log/slog regexp/syntax mime \
  github.com/decant-project/decant/internal/wasm/binary github.com/decant-project/decant/internal/wasm/codecache \
  github.com/tetratelabs/wazero/internal/wasm/binary github.com/tetratelabs/wazero/internal/engine/wazevo/frontend
DEVICE := -tags nethttpomithttp2 $(foreach p,$(SELDOM),-gcflags='$(p)=-l')
TOOL := $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 10s
export CGO_ENABLED ?= 0
export DECANT_DATA ?= $(CURDIR)/../shared/data

.PHONY: help build fetch-ort fetch-speech fetch-vision demo demo-vision test hostile lint bench fuzz cross clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: bin/decant bin/decant-supervisor fetch-ort ## decant and decant-supervisor into bin/, with ONNX Runtime beside them

bin/decant: FORCE
	$(GO) build -trimpath -ldflags='$(LDFLAGS) -X main.version=$(VERSION)' -o $@ ./cmd/decant

bin/decant-supervisor: FORCE
	$(GO) build -trimpath $(DEVICE) -ldflags='$(LDFLAGS) -X main.version=$(VERSION)' -o $@ ./cmd/decant-supervisor

fetch-ort: ## ONNX Runtime for this machine (ORT=path to use your own)
	$(GO) run ./examples/fetch -ort

fetch-speech: ## the speech model and recordings (MODEL=, WAV= to use your own)
	$(GO) run ./examples/fetch -speech

fetch-vision: ## MobileNetV2 and photographs, from DECANT_DATA
	$(GO) run ./examples/fetch -vision

demo: build fetch-speech ## three devices find who speaks, and when (KEEP=1 leaves them running)
	$(GO) run ./e2e/demo $(if $(KEEP),-keep) speech

demo-vision: build fetch-vision ## photographs in, what they show out (KEEP=1 leaves it running)
	$(GO) run ./e2e/demo $(if $(KEEP),-keep) vision

test: build fetch-speech $(if $(wildcard $(DECANT_DATA)),fetch-vision) ## all tests, with the race detector
	CGO_ENABLED=1 DECANT_REQUIRE_ORT=1 $(GO) test -race -timeout 10m ./...

hostile: ## hostile guests once more without the race detector: how long they stall, how much they take
	$(GO) test -count=1 -run Hostile ./internal/wasm

lint: ## what a reviewer should not have to say
	$(TOOL) golangci-lint run ./...
	$(TOOL) gofumpt -l . | (! grep .)

bench: build fetch-speech fetch-vision ## the figures of bench/RESULTS.md
	$(GO) run ./bench

fuzz: ## each fuzz target for FUZZTIME
	for f in $$(grep -rlE '^func Fuzz' --include=*_test.go .); do \
	  for t in $$(grep -oE '^func Fuzz[A-Za-z]*' $$f | cut -c6-); do \
	    echo "$$f $$t"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f) || exit 1; done; done

cross: ## the supervisor builds for every device that it should
	for t in linux/amd64 linux/arm64 linux/arm linux/riscv64 linux/mipsle darwin/arm64; do \
	  echo "$$t"; GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build $(DEVICE) -o /dev/null ./cmd/decant-supervisor || exit 1; done

clean: ## remove what was built; downloads stay
	rm -rf bin

FORCE:
