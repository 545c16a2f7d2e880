package wasm

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/tetratelabs/wazero/api"
)

// maxParams bounds the request to a numeric function: decoding takes many times
// its size in memory.
const maxParams = 64 << 10

// decodeParams reads the arguments of a numeric function from a JSON array.
// i32 and i64 take integers, signed or unsigned, and integers as text; f32 and
// f64 take numbers, and "NaN", "Infinity" and "-Infinity" as text.
func decodeParams(sig signature, request []byte) ([]uint64, error) {
	if len(request) > maxParams {
		return nil, fmt.Errorf("it is %s: the request has %d bytes, %d at most", sig, len(request), maxParams)
	}
	var args []json.RawMessage
	if err := json.Unmarshal(request, &args); err != nil || len(args) != len(sig.params) {
		return nil, fmt.Errorf("it is %s: send a JSON array of %d numbers", sig, len(sig.params))
	}
	out := make([]uint64, len(args))
	for i, raw := range args {
		text := string(raw)
		if unquoted, err := strconv.Unquote(text); err == nil {
			text = unquoted
		}
		v, ok := parseNumber(sig.params[i], text)
		if !ok {
			return nil, fmt.Errorf("it is %s: argument %d is %.40s, not an %s", sig, i+1, raw, api.ValueTypeName(sig.params[i]))
		}
		out[i] = v
	}
	return out, nil
}

func parseNumber(t api.ValueType, text string) (uint64, bool) {
	switch t {
	case api.ValueTypeI32:
		n, err := strconv.ParseInt(text, 10, 64)
		return api.EncodeU32(uint32(n)), err == nil && n >= math.MinInt32 && n <= math.MaxUint32 //nolint:gosec // checked
	case api.ValueTypeI64:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return uint64(n), true //nolint:gosec // two's complement
		}
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil
	case api.ValueTypeF32:
		f, err := strconv.ParseFloat(text, 32)
		return api.EncodeF32(float32(f)), err == nil
	default:
		f, err := strconv.ParseFloat(text, 64)
		return api.EncodeF64(f), err == nil
	}
}

// encodeResults writes the results of a numeric function as a JSON array. An
// i64 beyond the integers that every JSON reader keeps (2^53) is text, as are
// NaN and the infinities.
func encodeResults(sig signature, results []uint64) ([]byte, error) {
	out := make([]any, len(results))
	for i, v := range results {
		switch sig.results[i] {
		case api.ValueTypeI32:
			out[i] = api.DecodeI32(v)
		case api.ValueTypeI64:
			n := int64(v) //nolint:gosec // two's complement
			if out[i] = n; n > 1<<53 || n < -1<<53 {
				out[i] = strconv.FormatInt(n, 10)
			}
		case api.ValueTypeF32:
			out[i] = jsonFloat(float64(api.DecodeF32(v)), float32(0))
		default:
			out[i] = jsonFloat(api.DecodeF64(v), float64(0))
		}
	}
	return json.Marshal(out)
}

// jsonFloat returns f as what JSON can hold; the kind of like keeps an f32 as
// short as it is.
func jsonFloat(f float64, like any) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	if _, single := like.(float32); single {
		return float32(f)
	}
	return f
}
