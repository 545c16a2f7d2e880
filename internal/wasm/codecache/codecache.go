// Package codecache compiles modules without risk to who runs them. A compiler
// takes memory and time that a hostile module can blow up, and wazero's cannot
// be stopped: so the program starts itself again as a child with limits, which
// compiles into a folder and ends. What enters is a module's binary; what leaves
// is wazero's compiled module, loaded from the folder. The process that runs
// guests never compiles.
//
// The folder holds machine code, so it is its owner's alone, and every file in
// it is verified before it is run:
//
//	lock                       shared by the processes that have the folder open
//	modules/<digest>           what became of a module: its code, or why it has none
//	wazero-<version>-.../<key> machine code, written and read by wazero
//	compile-<random>/          where a child is at work
//
// A module that its compiler died of is remembered too, and refused at once from
// then on. On Linux memory, processor time, code and the time on the clock are
// limited, and a child dies with its parent. Elsewhere only the clock is a limit,
// and memory is what the garbage collector aims at.
package codecache

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/decant-project/decant"
)

// Config is how modules are compiled and kept.
type Config struct {
	Dir     string   // the folder; the cache's alone
	Command []string // starts this program so that it calls Child with one more argument; an absolute path first. "/proc/self/exe" outlives an update.
	Version string   // of the program: what another one kept is tried anew
	Limits  Limits   // the zero value is DefaultLimits, with half of the machine's memory at most
	Size    int64    // bytes of the folder beyond which the modules go that were not used for longest; 0 is DefaultSize
}

// Limits bound the compiling of one module.
type Limits struct {
	Memory int64         `json:"memory"` // bytes, beyond those that the program starts with
	Code   int64         `json:"code"`   // bytes of machine code
	CPU    time.Duration `json:"cpu"`    // of all processors, in whole seconds
	Wall   time.Duration `json:"wall"`   // on the clock
}

// DefaultLimits are several times what the largest modules take that are known
// to us: ONNX Runtime compiled to WebAssembly, 10 MB, takes 0.5 GB and 16 s.
var DefaultLimits = Limits{Memory: 1 << 30, Code: 256 << 20, CPU: 2 * time.Minute, Wall: 10 * time.Minute}

// DefaultSize is the size of a folder where a Config has none.
const DefaultSize = 1 << 30

// digest is the SHA-256 of a module's binary.
type digest = [sha256.Size]byte

// Cache compiles modules and keeps their code. It is safe for concurrent use, and
// several processes may have the same folder open.
type Cache struct {
	config Config
	lock   *os.File
	code   wazero.CompilationCache
	slots  chan struct{} // one for each child

	mu       sync.Mutex               // guards the following
	busy     map[digest]chan struct{} // modules that a call is at; closed when it is done
	verified map[digest]bool          // modules whose code this process has verified
}

// Open opens a folder, and makes it if there is none. Denied: others than its
// owner may get at it.
func Open(c Config) (*Cache, error) {
	if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
		return nil, decant.Errorf(decant.Internal, "the compiler's command %q does not begin with an absolute path", c.Command)
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits
		if half := ram() / 2; half > 0 {
			c.Limits.Memory = min(c.Limits.Memory, half)
		}
	}
	if c.Size == 0 {
		c.Size = DefaultSize
	}
	lock, err := openFolder(c)
	if err != nil {
		return nil, err
	}
	code, err := wazero.NewCompilationCacheWithDir(c.Dir)
	if err != nil {
		return nil, errors.Join(decant.Errorf(decant.Internal, "cannot open the cache of compiled modules: %w", err), lock.Close())
	}
	return &Cache{
		config: c, lock: lock, code: code,
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		busy:  map[digest]chan struct{}{}, verified: map[digest]bool{},
	}, nil
}

// Compilation is what a runtime is to be configured with to load from the cache.
func (c *Cache) Compilation() wazero.CompilationCache { return c.code }

// Close frees the code that was loaded. No call is at work, and what runs the
// code was closed before.
func (c *Cache) Close() error {
	return errors.Join(c.code.Close(context.Background()), c.lock.Close())
}

// Compile returns a module for r, which has the Compilation of the cache and is
// otherwise configured as Child is. A child compiles the module unless its code is
// there. Calls for the same module wait for one of them.
//
// Invalid: it is no module that wazero takes, or compiling it went beyond a limit.
// Exhausted: the disk is full, or the machine ran out of memory.
func (c *Cache) Compile(ctx context.Context, r wazero.Runtime, binary []byte) (wazero.CompiledModule, error) {
	key := sha256.Sum256(binary)
	release, err := c.take(ctx, key)
	if err != nil {
		return nil, err
	}
	defer release()
	for range 2 {
		if err := c.ensure(ctx, key, binary); err != nil {
			return nil, err
		}
		m, err := load(ctx, r, binary)
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, errMissing) {
			return nil, decant.Errorf(decant.Internal, "cannot load the compiled module: %w", err)
		}
		// It was compiled for another processor, or another process removed it.
		c.drop(key)
	}
	return nil, decant.Errorf(decant.Internal, "the compiler made code that this program does not find").
		WithHelp("start the program again: it may have been replaced while it ran")
}

var errMissing = errors.New("there is no code for this module")

// load makes a module of code that is there. It never compiles: with workers,
// wazero looks at the context before each function that it compiles, and finds it
// ended.
func load(ctx context.Context, r wazero.Runtime, binary []byte) (wazero.CompiledModule, error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel(errMissing)
	return r.CompileModule(experimental.WithCompilationWorkers(ctx, 2), binary)
}

// take waits until no other call is at a module. A call whose context ends leaves
// its work to the next.
func (c *Cache) take(ctx context.Context, key digest) (release func(), err error) {
	for {
		c.mu.Lock()
		other, taken := c.busy[key]
		if !taken {
			done := make(chan struct{})
			c.busy[key] = done
			c.mu.Unlock()
			return func() { c.release(key, done) }, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Cache) release(key digest, done chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, key)
	close(done)
}

// ensure sees to it that there is verified code for a module, or returns why
// there is none.
func (c *Cache) ensure(ctx context.Context, key digest, binary []byte) error {
	if r, ok := c.find(key); ok {
		c.touch(key)
		return r.err()
	}
	c.drop(key)
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.compile(ctx, key, binary)
}

// compile has a child compile a module, and keeps what became of it.
func (c *Cache) compile(ctx context.Context, key digest, binary []byte) error {
	work, err := os.MkdirTemp(c.config.Dir, workPrefix)
	if err != nil {
		return cannotKeep(err)
	}
	defer os.RemoveAll(work)
	r, err := c.runChild(ctx, work, binary)
	if err != nil {
		return err
	}
	if err := c.keep(work, key, r); err != nil {
		return cannotKeep(err)
	}
	if err := c.evict(); err != nil {
		return decant.Errorf(decant.Internal, "cannot make room for compiled modules: %w", err)
	}
	return r.err()
}

func cannotKeep(err error) error {
	return decant.Errorf(decant.Exhausted, "cannot keep a compiled module: %w", err).WithHelp("make room on the disk, or see why it cannot be written")
}
