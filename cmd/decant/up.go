package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/api/deviceclient"
	"github.com/decant-project/decant/internal/api/site"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/discovery"
	"github.com/decant-project/decant/internal/durable"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/listen"
	"github.com/decant-project/decant/internal/orchestrator"
	"github.com/decant-project/decant/internal/packages"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/state/sqlite"
	httptransport "github.com/decant-project/decant/internal/transport/http"
	"github.com/decant-project/decant/internal/wasinn"
	"github.com/decant-project/decant/internal/wasm"
	"github.com/decant-project/decant/internal/wasm/binary"
)

type upFlags struct {
	dir, site, listen, api string
	multicast              bool
	logLevel               string
}

func upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the orchestrator of a site",
		Long: `Start the orchestrator of a site and run it until it is interrupted. The first
start makes the site: its authority, and a data folder that holds all it must
not lose.

Devices reach it at --listen, over mutual TLS. Users reach it by a socket in the
data folder and at --api, which asks for the token in that folder.`,
		Example: "  decant up\n  decant up --site workshop --listen :7443",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if f.dir, err = dataDir(cmd); err != nil {
				return err
			}
			return up(cmd.Context(), f, cmd.ErrOrStderr().Write)
		},
	}
	cmd.Flags().StringVar(&f.site, "site", "", "name of the site (default what the data folder has, else "+identity.DefaultSite+")")
	cmd.Flags().StringVar(&f.listen, "listen", ":7443", "where devices reach it; port 0 picks one, and keeps it")
	cmd.Flags().StringVar(&f.api, "api", "127.0.0.1:7440", "where the users' REST API is served, with a token; off is nowhere")
	cmd.Flags().BoolVar(&f.multicast, "discovery", true, "find devices, and be found, by mDNS")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// up is the wiring of the orchestrator. What is opened first is closed last:
// the state outlives all that writes to it, and the servers that take requests
// stop before what answers them.
func up(ctx context.Context, f upFlags, stderr writerFunc) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return decant.Errorf(decant.Invalid, "log level %q: use debug, info, warn or error", f.logLevel)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	// What is in it is nobody else's, also where the folder was made for us.
	if err := errors.Join(os.MkdirAll(f.dir, 0o700), os.Chmod(f.dir, 0o700)); err != nil {
		return decant.Errorf(decant.Invalid, "cannot make the data folder: %w", err).WithHelp("name another with --dir")
	}
	st, err := sqlite.Open(filepath.Join(f.dir, "state.db"))
	if err != nil {
		return err
	}
	defer closeAll(log, "state", st.Close)
	bl, err := blobs.Open(filepath.Join(f.dir, "blobs"))
	if err != nil {
		return err
	}
	host, err := wasm.New(ctx, wasm.Config{CacheDir: filepath.Join(f.dir, "compiled"), Version: version, Modules: []wasm.HostModule{wasinn.Instantiate}})
	if err != nil {
		return err
	}
	defer closeAll(log, "guest host", host.Close)

	authority, err := identity.OpenAuthority(filepath.Join(f.dir, "authority"), f.site)
	if err != nil {
		return err
	}
	member, renew, err := selfMember(f.dir, authority)
	if err != nil {
		return err
	}
	devices, err := listen.Port(ctx, f.listen, filepath.Join(f.dir, "port"))
	if err != nil {
		return decant.WithHelp(err, "choose another port with --listen")
	}
	defer devices.Close()
	users, token, err := listenUsers(ctx, f)
	for _, l := range users {
		defer l.Close()
	}
	if err != nil {
		return err
	}

	port := devices.Addr().(*net.TCPAddr).Port
	caller := httptransport.NewCaller(member.ToDevice)
	defer caller.Close()
	config := orchestrator.Config{
		State: st, Packages: packages.New(st, bl, inspector{host}), Blobs: bl, Authority: authority,
		Devices: deviceclient.New(member), Caller: caller, Version: version, Log: log,
		Addresses: func() []string { return listen.Addresses(devices.Addr()) },
	}
	if f.multicast {
		config.Discovery = discovery.MDNS{}
	}
	o := orchestrator.New(config)

	usersMux := http.NewServeMux()
	site.Register(usersMux, version, o)
	servers := []*server{{
		listener: tls.NewListener(listen.PerHost(devices, maxConnections), member.ServerTLS()),
		handler:  site.DeviceHandler(version, o, member.PeerOf),
	}}
	for _, l := range users {
		s := &server{listener: l, handler: usersMux}
		if l.Addr().Network() != "unix" {
			s.handler = requireToken(token, usersMux)
		}
		servers = append(servers, s)
	}
	log.Info("the orchestrator is up", "site", authority.Site(), "devices", config.Addresses(), "socket", filepath.Join(f.dir, socketName), "version", version)

	parts := []func(context.Context) error{o.Run, renew}
	if f.multicast {
		parts = append(parts, func(ctx context.Context) error {
			advertise(ctx, config.Discovery, member, port, log)
			return nil
		})
	}
	for _, s := range servers {
		parts = append(parts, s.run)
	}
	return runAll(ctx, parts)
}

// runAll runs parts until ctx ends or one fails, and returns when all have
// stopped.
func runAll(ctx context.Context, parts []func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error {
			if err := part(ctx); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}

// inspector looks into modules as they are pushed.
type inspector struct{ host *wasm.Host }

// Exports implements packages.Inspector.
func (i inspector) Exports(ctx context.Context, module []byte, limits map[string]int) ([]string, error) {
	if len(limits) > 0 {
		named, err := binary.NamedLimits(limits)
		if err != nil {
			return nil, err
		}
		if err := i.host.Check(module, named); err != nil {
			return nil, err
		}
	}
	m, err := i.host.Compile(ctx, module)
	if err != nil {
		return nil, err
	}
	return m.Functions(), m.Close()
}

// selfMember makes the orchestrator a member of its own site, and returns what
// keeps it one.
func selfMember(dir string, authority *identity.Authority) (*identity.Member, func(context.Context) error, error) {
	key, err := identity.OpenKey(filepath.Join(dir, "orchestrator.key"))
	if err != nil {
		return nil, nil, err
	}
	id, err := identity.DeviceID(key.Public())
	if err != nil {
		return nil, nil, err
	}
	issue := func(context.Context, []byte) (identity.Credential, error) {
		return authority.Issue(identity.RoleOrchestrator, id, key.Public())
	}
	cred, err := issue(context.Background(), nil)
	if err != nil {
		return nil, nil, err
	}
	member, err := identity.NewMember("", key, cred)
	return member, func(ctx context.Context) error {
		member.KeepRenewed(ctx, issue, func(err error) { slog.Error("cannot renew the orchestrator's certificate", "error", err) })
		return nil
	}, err
}

func advertise(ctx context.Context, d discovery.Discoverer, m *identity.Member, port int, log *slog.Logger) {
	err := d.Advertise(ctx, discovery.Service{
		Kind: discovery.Orchestrators, ID: m.ID(), Port: port,
		Text: map[string]string{"pin": m.Pin().String(), "site": m.Site()},
	})
	if err != nil && ctx.Err() == nil {
		log.Warn("cannot be found by mDNS; start devices with --orchestrator", "error", err)
	}
}

// listenUsers listens where users ask: at a socket that only its owner may
// open, and, unless it is off, on the network, where a token is asked for.
func listenUsers(ctx context.Context, f upFlags) (listeners []net.Listener, token string, err error) {
	l, err := listen.Socket(ctx, filepath.Join(f.dir, socketName))
	if err != nil {
		return nil, "", decant.WithHelp(err, "a socket's path is short: choose another --dir")
	}
	listeners = append(listeners, l)
	if f.api == "off" {
		return listeners, "", nil
	}
	if token, err = openToken(filepath.Join(f.dir, tokenName)); err != nil {
		return listeners, "", err
	}
	var lc net.ListenConfig
	l, err = lc.Listen(ctx, "tcp", f.api)
	if err != nil {
		return listeners, "", decant.Errorf(decant.Unavailable, "cannot listen for users: %w", err).WithHelp("choose another address with --api, or --api off")
	}
	return append(listeners, l), token, nil
}

// openToken reads the token of the users' API, or makes one.
func openToken(file string) (string, error) {
	data, _ := os.ReadFile(file)
	if token := strings.TrimSpace(string(data)); token != "" { // an empty one would let everybody in
		return token, nil
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	token := hex.EncodeToString(raw)
	return token, durable.WriteFile(file, []byte(token))
}

// requireToken lets requests through that carry the token. Only what the API
// says of itself is for everybody.
func requireToken(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !strings.HasPrefix(r.URL.Path, "/openapi") && subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
			problem.Write(w, decant.Errorf(decant.Denied, "the request has no valid token").
				WithHelp("send the header Authorization: Bearer, with what is in the file %s of the data folder; decant takes it from $DECANT_TOKEN", tokenName))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxConnections is how many connections one host may hold: devices behind one
// address have some each.
const maxConnections = 512

// server is an HTTP server as a part of the program.
type server struct {
	listener net.Listener
	handler  http.Handler
}

// Limits of a server's connections. Streams last as long as they like, so the
// whole of a request or an answer is not bounded.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	stopTimeout   = 5 * time.Second
)

func (s *server) run(ctx context.Context) error {
	h := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx }, // streams end with the program
		ErrorLog:    slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timeout, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if h.Shutdown(timeout) != nil {
			_ = h.Close()
		}
	})
	err := h.Serve(s.listener)
	if !unhook() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("the server at %s failed: %w", s.listener.Addr(), err)
}

func closeAll(log *slog.Logger, what string, f func() error) {
	if err := f(); err != nil {
		log.Error("cannot close the "+what, "error", err)
	}
}
