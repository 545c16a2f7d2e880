package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/decant-project/decant/bench/kernels"
	"github.com/decant-project/decant/internal/nn"
	"github.com/decant-project/decant/internal/nn/onnxruntime"
	"github.com/decant-project/decant/internal/wasinn"
	"github.com/decant-project/decant/internal/wasm"
)

// inferences compares a model called in a guest with the same model called
// directly.
func inferences(ctx context.Context, rounds int) (out []figure, err error) {
	backend, err := onnxruntime.New("bin/libonnxruntime.so.1")
	if err != nil {
		return nil, err
	}
	defer backend.Close()
	data := os.Getenv("DECANT_DATA")
	for _, variant := range []string{"int8", "fp32"} {
		file, err := os.ReadFile(filepath.Join(data, "models", "mobilenetv2-"+variant+".onnx"))
		if err != nil {
			return nil, fmt.Errorf("set DECANT_DATA to the folder with the models: %w", err)
		}
		model, err := backend.Load(ctx, file)
		if err != nil {
			return nil, err
		}
		figures, err := inference(ctx, model, variant, max(20, rounds/10))
		if err = errors.Join(err, model.Close()); err != nil {
			return nil, err
		}
		out = append(out, figures...)
	}
	return out, nil
}

func inference(ctx context.Context, model nn.Model, variant string, rounds int) ([]figure, error) {
	guest, err := startGuest(ctx, model)
	if err != nil {
		return nil, err
	}
	defer guest.close()
	input := picture()
	if _, err := guest.Call(ctx, "picture", input); err != nil {
		return nil, err
	}
	var viaGuest, direct []byte
	took, least, err := inTurns(rounds, func() (err error) {
		viaGuest, err = guest.Call(ctx, "infer", nil)
		return err
	}, func() error {
		tensors, err := model.Run(ctx, []nn.Tensor{{Type: nn.F32, Shape: []int64{1, 3, 224, 224}, Data: input}})
		if err == nil {
			direct = tensors[0].Data
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(viaGuest, direct) {
		return nil, errors.New("the guest's answer is another than ONNX Runtime's")
	}
	return []figure{
		compare("inference "+variant, .5, took, least, 1.02),
		compare("inference "+variant, .99, took, least, 0),
	}, nil
}

// guest is a module that runs, with all that must go with it.
type guest struct {
	*wasm.Guest
	close func()
}

// startGuest starts the module infer, with model bound to it.
func startGuest(ctx context.Context, model nn.Model) (*guest, error) {
	binary, err := kernels.Build(ctx, "github.com/decant-project/decant/bench/infer")
	if err != nil {
		return nil, err
	}
	host, err := wasm.New(ctx, wasm.Config{Modules: []wasm.HostModule{wasinn.Instantiate}})
	if err != nil {
		return nil, err
	}
	module, err := host.Compile(ctx, binary)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	session := wasinn.NewSession(bound{model}, os.Stderr)
	g, err := host.Start(ctx, module, wasm.GuestConfig{
		Log: os.Stderr, Context: func(ctx context.Context) (context.Context, func()) { return wasinn.With(ctx, session), func() {} },
	})
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	return &guest{g, func() { _ = errors.Join(g.Close(), session.Close(), module.Close(), host.Close()) }}, nil
}

// bound is the one model of the guest.
type bound struct{ nn.Model }

func (b bound) ByName(context.Context, string) (nn.Model, error) { return b.Model, nil }

func (bound) FromBytes(context.Context, []byte) (nn.Model, error) {
	return nil, errors.New("the guest brings no model")
}

// picture makes an input of MobileNetV2, f32 [1,3,224,224]: what it shows costs
// nothing more or less.
func picture() []byte {
	var out []byte
	for i := range 3 * 224 * 224 {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(math.Sin(float64(i)/97))))
	}
	return out
}
