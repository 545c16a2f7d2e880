package fetch

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/decant-project/decant"
)

// progress shows how far something is: a bar on a terminal, a line elsewhere.
type progress struct{ out *os.File }

const lookEvery = 100 * time.Millisecond

// watch shows how dir grows to total bytes (-1: unknown) until stop is called.
func (p *progress) watch(what, dir string, total int64) (stop func()) {
	bar, finish := p.start(what, total)
	if bar == nil {
		return finish
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				have := size(dir)
				if total > 0 {
					have = min(have, total)
				}
				_ = bar.Set64(have)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
		finish()
	}
}

// count shows how much of total bytes was read of r until stop is called.
func (p *progress) count(what string, r io.Reader, total int64) (counted io.Reader, stop func()) {
	bar, finish := p.start(what, total)
	if bar == nil {
		return r, finish
	}
	return io.TeeReader(r, bar), finish
}

// start returns a bar, or nil where there is no terminal for it.
func (p *progress) start(what string, total int64) (bar *progressbar.ProgressBar, finish func()) {
	if p.out == nil {
		return nil, func() {}
	}
	if !term.IsTerminal(int(p.out.Fd())) {
		fmt.Fprintln(p.out, "getting", label(what, total))
		return nil, func() {}
	}
	bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(lookEvery), progressbar.OptionClearOnFinish())
	began := time.Now()
	return bar, func() {
		_ = bar.Clear()
		fmt.Fprintf(p.out, "got %s in %s\n", what, time.Since(began).Round(lookEvery))
	}
}

func label(what string, total int64) string {
	if total < 0 {
		return what
	}
	return fmt.Sprintf("%s (%s)", what, decant.Bytes(total))
}

// size returns the bytes of all files below dir, as far as they can be seen.
func size(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
