package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	expsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/sys"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/wasm/binary"
	"github.com/decant-project/decant/internal/wasm/memory"
)

// session is an instance of a module and the call it is in. One goroutine uses
// it at a time.
type session struct {
	guest  *Guest
	module api.Module
	memory *memory.Memory
	files  *rootFS
	lost   bool
	held   int // bytes that the host keeps in the guest's open links and devices
	meter  api.MutableGlobal
	began  time.Time     // this session
	ran    time.Duration // the guest's clock at that moment
	// exports are some of those called before. Each holds a stack, which is dear to
	// make, and as large as it ever was.
	exports map[string]api.Function

	// Of the call under way.
	ctx     context.Context //nolint:containedctx // files are used without one
	in      bytes.Reader
	out     []byte
	outside error     // the first failure of something outside the guest
	cut     error     // why the host ended the call, or cut off what it read or wrote
	said    []byte    // the end of the log
	logged  int       // bytes of the log
	burnt   int64     // fuel, up to the last yield
	given   int32     // fuel, at the last yield
	rested  time.Time // when others had their turn
}

// start makes an instance of the guest's module and initializes it.
func (g *Guest) start(ctx context.Context) (*session, error) {
	s, err := g.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	ctx = s.begin(ctx, nil)
	for _, name := range g.module.initializers() {
		s.fill()
		if _, err := s.module.ExportedFunction(name).Call(ctx); err != nil {
			err = s.failure(ctx, "initializing", err)
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// instantiate makes an instance of the guest's module, in which nothing has run
// yet.
func (g *Guest) instantiate(ctx context.Context) (*session, error) {
	s := &session{guest: g, memory: memory.New(uint64(g.config.Memory)), exports: map[string]api.Function{}, began: time.Now()}
	s.begin(ctx, nil)
	var err error
	if s.files, err = newRootFS(s); err != nil {
		return nil, err
	}
	config := wazero.NewModuleConfig().
		WithName("").
		WithStartFunctions().
		WithStdin(stream(s.read)).
		WithStdout(stream(s.write)).
		WithStderr(stream(s.log)).
		WithArgs(append([]string{"module"}, g.config.Args...)...).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(s.files, "/")).
		WithRandSource(stream(s.random)).
		WithSysWalltime().
		WithNanotime(func() int64 { return int64(s.clock()) }, 1).
		WithNanosleep(s.sleep)
	for k, v := range g.config.Env {
		config = config.WithEnv(k, v)
	}
	s.module, err = s.instantiateModule(experimental.WithMemoryAllocator(ctx, s.memory), config)
	if err != nil {
		s.memory.Free() // which wazero does only where there is a module to close
		return nil, errors.Join(s.failure(ctx, "starting", err), s.files.close())
	}
	s.meter = s.module.ExportedGlobal(binary.MeterName).(api.MutableGlobal) //nolint:forcetypeassert // binary.Prepare has made it
	return s, nil
}

// clock is the guest's monotonic clock. It goes on where a snapshot was taken.
func (s *session) clock() time.Duration { return s.ran + time.Since(s.began) }

// instantiateModule turns into an error that wazero panics where the memory a
// module begins with is refused.
func (s *session) instantiateModule(ctx context.Context, config wazero.ModuleConfig) (_ api.Module, err error) {
	defer func() {
		if p := recover(); p != nil {
			if !s.memory.Refused() {
				panic(p)
			}
			err = errors.New("the memory that it begins with is too large")
		}
	}()
	m := s.guest.module
	return m.host.runtime.InstantiateModule(ctx, m.compiled, config)
}

// begin sets the session up for a call, and returns the context to make it in.
func (s *session) begin(ctx context.Context, request []byte) context.Context {
	s.ctx, s.out, s.outside, s.cut, s.said, s.logged = ctx, nil, nil, nil, nil, 0
	s.in.Reset(request)
	return context.WithValue(ctx, sessionKey{}, s)
}

// call calls a function of the module.
func (s *session) call(ctx context.Context, function string, request []byte) ([]byte, error) {
	if s.lost {
		return nil, decant.Errorf(decant.GuestFailed, "the guest broke down in an earlier call")
	}
	f := s.exports[function]
	if f == nil {
		f = s.module.ExportedFunction(function)
	}
	sig := s.guest.module.functions[function]
	var params []uint64
	if !sig.streams {
		var err error
		if params, err = decodeParams(sig, request); err != nil {
			return nil, decant.Errorf(decant.Invalid, "function %s: %w", function, err)
		}
		request = nil
	}
	called := s.begin(ctx, request)
	defer s.let()
	s.fill()
	results, err := f.Call(called, params...)
	s.remember(function, f)
	if err != nil {
		if exit := (*sys.ExitError)(nil); s.guest.module.command && errors.As(err, &exit) && exit.ExitCode() == 0 && ctx.Err() == nil {
			return s.finish()
		}
		return nil, s.failure(ctx, "calling "+function, err)
	}
	if !sig.streams {
		if s.cut != nil {
			return nil, s.cut
		}
		return encodeResults(sig, results)
	}
	if len(results) == 1 && uint32(results[0]) != 0 {
		return nil, s.status(function, int32(results[0])) //nolint:gosec // an i32
	}
	return s.finish()
}

// remember keeps an export for the next call, unless its stack may have grown:
// a unit of fuel buys 16 bytes of it at most.
func (s *session) remember(function string, f api.Function) {
	const most, fuel = 8, 1 << 16
	delete(s.exports, function)
	if left := binary.Meter(s.meter.Get()).Fuel(); s.burnt == 0 && s.given-left <= fuel && len(s.exports) < most { //nolint:gosec // a bit pattern
		s.exports[function] = f
	}
}

// let goes of the request and the response of a call: the guest may not be
// called again for long.
func (s *session) let() {
	s.in.Reset(nil)
	s.out = nil
}

// finish returns the response. What went wrong outside counts only where the
// guest failed by it, but for what was cut off.
func (s *session) finish() ([]byte, error) {
	if s.cut != nil {
		return nil, s.cut
	}
	return s.out, nil
}

var errOutput = decant.Errorf(decant.Exhausted, "the response is larger than a call may give")

// status is the error of a function that ended with a status.
func (s *session) status(function string, status int32) error {
	if s.cut != nil {
		return s.cut
	}
	if s.outside != nil {
		return s.outside
	}
	why := fmt.Sprintf("function %s failed with status %d", function, status)
	if last := s.lastLog(); last != "" {
		why += ": " + last
	}
	return decant.Errorf(decant.GuestFailed, "%s", why)
}

// failure is the error of a call that did not return. The instance is lost: a
// trap leaves the module's own stack as it was.
func (s *session) failure(ctx context.Context, during string, err error) error {
	s.lost = true
	if ctx.Err() != nil {
		return s.guest.ended(ctx, during)
	}
	if s.cut != nil {
		return s.cut
	}
	if s.outside != nil {
		return s.outside
	}
	if strings.Contains(firstLine(err), "stack overflow") { // the interpreter's own limit, in frames
		return errStack
	}
	if s.memory.Refused() {
		return decant.Errorf(decant.Exhausted, "the guest needs more than the %s of memory it may have (%s): %s", s.guest.config.Memory, during, firstLine(err)).
			WithHelp("raise needs.memory")
	}
	if exit := (*sys.ExitError)(nil); errors.As(err, &exit) {
		return s.status(strings.TrimPrefix(during, "calling "), int32(exit.ExitCode())) //nolint:gosec // an exit status
	}
	// The stack is for whoever reads the log.
	fmt.Fprintf(s.guest.config.Log, "%s: %v\n", during, err)
	return decant.Errorf(decant.GuestFailed, "the guest broke down while %s: %s", during, firstLine(err))
}

// failed notes that something outside the guest failed.
func (s *session) failed(err error) {
	if s.outside == nil {
		s.outside = err
	}
	_ = s.keepLog(fmt.Appendln(nil, "decant:", err))
}

// close frees the instance. It may be closed again.
func (s *session) close() {
	_ = s.module.Close(context.Background())
	_ = s.files.close()
	s.lost = true
}

// ended returns an error once the call has ended. All that reads and writes for
// the guest asks first: a guest may have the host go through millions of buffers
// in one call of fd_read or fd_write, where nothing else stops it.
func (s *session) ended() error {
	if s.ctx.Err() == nil {
		return nil
	}
	s.cut = s.guest.ended(s.ctx, "calling the host")
	return s.cut
}

// stream makes a reader and a writer of a function.
type stream func([]byte) (int, error)

func (f stream) Read(p []byte) (int, error)  { return f(p) }
func (f stream) Write(p []byte) (int, error) { return f(p) }

// random fills the beginning of p: what the kernel does in one go cannot be
// stopped.
func (s *session) random(p []byte) (int, error) {
	if err := s.ended(); err != nil {
		return 0, err
	}
	return rand.Read(p[:min(len(p), 64<<10)])
}

// read gives what the guest reads of standard input.
func (s *session) read(p []byte) (int, error) {
	if err := s.ended(); err != nil {
		return 0, err
	}
	return s.in.Read(p)
}

// write takes what the guest writes to standard output.
func (s *session) write(p []byte) (int, error) {
	if err := s.ended(); err != nil {
		return 0, err
	}
	if len(s.out)+len(p) > s.guest.config.Output {
		s.cut = errOutput
		return 0, errOutput
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// maxLogLine bounds what is kept of the end of the log, for errors.
const maxLogLine = 300

// lastLog returns the last line of the log.
func (s *session) lastLog() string {
	lines := strings.TrimSpace(string(s.said))
	return strings.ToValidUTF8(lines[strings.LastIndexByte(lines, '\n')+1:], "")
}

// maxLog bounds what a call may add to the log.
const maxLog = 1 << 20

// log takes what the guest writes to standard error.
func (s *session) log(p []byte) (int, error) {
	if err := s.ended(); err != nil {
		return 0, err
	}
	s.said = append(s.said, p[max(0, len(p)-maxLogLine):]...)
	s.said = s.said[max(0, len(s.said)-maxLogLine):]
	return len(p), s.keepLog(p)
}

// keepLog writes to the log what the call may still add to it. The rest is
// dropped with one remark: no call fails by saying too much.
func (s *session) keepLog(p []byte) error {
	room := maxLog - s.logged
	if room < 0 {
		return nil // the remark was made
	}
	s.logged += len(p)
	if len(p) <= room {
		_, err := s.guest.config.Log.Write(p)
		return err
	}
	_, err := fmt.Fprintf(s.guest.config.Log, "%s\ndecant: this call has logged more than %s: the rest is dropped\n", p[:room], decant.Bytes(maxLog))
	return err
}

// maxHeld bounds what the host keeps for a guest in all of its open links and
// devices: requests being written, and responses and samples being read.
const maxHeld = 128 << 20

var errHeld = decant.Errorf(decant.Exhausted, "the guest's open links and devices would hold more than %s", decant.Bytes(maxHeld))

// hold counts n more bytes that the host keeps for the guest, if they fit.
func (s *session) hold(n int) expsys.Errno {
	if n > maxHeld-s.held {
		s.failed(errHeld)
		return expsys.EIO // there is no ENOSPC to tell it by
	}
	s.held += n
	return 0
}

func (s *session) release(n int) { s.held -= n }

// sleep lets a guest sleep no longer than its call may last.
func (s *session) sleep(ns int64) {
	timer := time.NewTimer(time.Duration(ns))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}
