package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/device"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/listen"
	"github.com/decant-project/decant/internal/supervisor"
	"github.com/decant-project/decant/internal/supervisor/guesthost"
	httptransport "github.com/decant-project/decant/internal/transport/http"
	"github.com/decant-project/decant/internal/wasm"
)

// program is a supervisor with all that it needs, open.
type program struct {
	supervisor *supervisor.Supervisor
	server     *http.Server // of the site, on listener
	listener   net.Listener
	local      *http.Server // of the device's own user, on socket
	socket     net.Listener
	caller     *httptransport.Caller
	guests     *guesthost.Host
	unlock     func() error
	log        *slog.Logger
}

// open puts the program together. What fails first is what a person most often
// has to change: the data folder in use, then the address in use.
func open(ctx context.Context, config supervisor.Config, data string, log *slog.Logger) (_ *program, err error) {
	p := &program{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	// What is in it is nobody else's, also where the folder was made for us.
	if err := errors.Join(os.MkdirAll(data, 0o700), os.Chmod(data, 0o700)); err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot make the data folder: %w", err).WithHelp("name another with --data")
	}
	if p.unlock, err = lock(data); err != nil {
		return nil, err
	}
	identity, err := supervisor.OpenIdentity(data)
	if err != nil {
		return nil, err
	}
	store, err := blobs.Open(filepath.Join(data, "blobs"))
	if err != nil {
		return nil, err
	}
	if p.guests, err = guesthost.New(ctx, wasm.Config{CacheDir: filepath.Join(data, "cache"), Version: version, Interpreter: config.Engine == "interpreter", Limits: config.Modules}); err != nil {
		return nil, err
	}
	if p.listener, err = listen.Port(ctx, config.Listen, filepath.Join(data, "port")); err != nil {
		return nil, decant.WithHelp(err, "set listen in device.yaml, such as \":0\" for any free port")
	}
	p.caller = httptransport.NewCaller(identity.ToDevice)
	p.listener = listen.PerHost(p.listener, maxConnections)
	parts := supervisor.Parts{
		Data: data, Version: version, Log: log,
		Listen: p.listener.Addr(), Identity: identity,
		Guests: p.guests, Engine: p.guests.Engine(),
		Blobs: store, Caller: p.caller,
		OpenPeripheral: config.OpenPeripheral,
	}
	if !supervisor.Off(config.Discovery) {
		parts.Discovery = discovery.MDNS{}
	}
	if !supervisor.Off(config.Inference) {
		parts.Inference, parts.OpenBackend = inference(ctx, config.ONNXRuntime, log)
	}
	if p.supervisor, err = supervisor.New(config, parts); err != nil {
		return nil, err
	}
	if p.socket, err = listen.Socket(ctx, filepath.Join(data, socketName)); err != nil {
		return nil, decant.WithHelp(err, "a socket's path is short: choose another --data")
	}
	p.server = newServer(device.Handler(p.supervisor, version, identity.PeerOf), log)
	p.server.TLSConfig = identity.ServerTLS()
	p.local = newServer(device.LocalHandler(p.supervisor, version), log)
	return p, nil
}

// maxConnections is how many one host may hold.
const maxConnections = 256

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// run serves until ctx ends, or until the supervisor or the server fails.
func (p *program) run(ctx context.Context, code string) error {
	info := p.supervisor.Info()
	p.log.Info("device is up", "name", info.Name, "id", info.ID, "addresses", strings.Join(info.Addresses, ","), "version", version)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return served(p.server.ServeTLS(p.listener, "", "")) })
	group.Go(func() error { return served(p.local.Serve(p.socket)) })
	group.Go(func() error {
		err := p.supervisor.Run(ctx, code)
		// Answers that are still being written have a moment; calls have ended.
		late, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		for _, s := range []*http.Server{p.server, p.local} {
			if s.Shutdown(late) != nil {
				s.Close()
			}
		}
		return err
	})
	return group.Wait()
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return decant.Errorf(decant.Internal, "cannot serve the device's API: %w", err)
}

// close frees all, in the order in which it is used: calls have ended before
// guests and models go.
func (p *program) close() error {
	var errs []error
	for _, l := range []net.Listener{p.listener, p.socket} {
		if l != nil {
			l.Close()
		}
	}
	if p.supervisor != nil {
		errs = append(errs, p.supervisor.Close())
	}
	if p.caller != nil {
		p.caller.Close()
	}
	if p.guests != nil {
		errs = append(errs, p.guests.Close())
	}
	if p.unlock != nil {
		errs = append(errs, p.unlock())
	}
	return errors.Join(errs...)
}

// socketName is the socket of the device's own user, in the data folder.
const socketName = "device.sock"
