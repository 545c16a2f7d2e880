package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/blobs"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/sse"
)

// The pace of the conversation with an orchestrator.
const (
	reportEvery  = 5 * time.Second        // keeps the device's lease alive
	reportGather = 100 * time.Millisecond // what changes meanwhile is told at once
	answerWithin = 10 * time.Second       // the beginning of an answer
	unknownPause = 30 * time.Second       // before asking again one that does not know this device
	maxAnswer    = 1 << 20
)

// connection is the device's conversation with one of its site's orchestrators,
// all of it begun by the device: it watches what is desired, reports what is,
// pulls blobs and renews its certificate. Without one, all that runs goes on.
type connection struct {
	s *Supervisor

	mu     sync.Mutex
	client *http.Client
	base   string        // https://host:port of the orchestrator, "" while there is none
	last   string        // the one before, or the same
	ready  chan struct{} // closed while base is set
}

func newConnection(s *Supervisor) *connection {
	return &connection{s: s, ready: make(chan struct{})}
}

// run keeps a connection until ctx ends. The device has joined.
func (c *connection) run(ctx context.Context) {
	member := c.s.parts.Identity.member.Load()
	if member == nil {
		return // ctx ended before
	}
	network := &http.Transport{
		TLSClientConfig:       member.ToOrchestrator(),
		DialContext:           (&net.Dialer{Timeout: answerWithin}).DialContext,
		TLSHandshakeTimeout:   answerWithin,
		ResponseHeaderTimeout: answerWithin,
		IdleConnTimeout:       time.Minute,
	}
	c.mu.Lock()
	c.client = &http.Client{Transport: network}
	c.mu.Unlock()

	var renewal sync.WaitGroup
	defer renewal.Wait()
	renewal.Go(func() {
		member.KeepRenewed(ctx, c.renew, func(err error) {
			c.s.log.Warn("cannot renew the device's certificate", "error", err, "ends", member.Expires())
		})
	})
	c.connect(ctx, member.Pin().String())
}

// connect talks to one orchestrator after the other, in turn.
func (c *connection) connect(ctx context.Context, pin string) {
	pause := backoff{first: connectFirst, most: connectMost}
	var complaint throttle
	for turn := 0; ctx.Err() == nil; turn++ {
		wait := pause.next()
		if known := c.s.orchs.of(pin); len(known) == 0 {
			if _, ok := complaint.allow(); ok {
				c.s.log.Info("no orchestrator of the site is in sight; what runs goes on")
			}
		} else {
			address := known[turn%len(known)]
			talked, err := c.talk(ctx, "https://"+address)
			if talked {
				pause.reset()
				wait, turn = pause.next(), turn-1 // the same one first
			}
			if errors.Is(err, decant.Denied) {
				if c.s.joinAgain(ctx) {
					pause.reset()
					continue
				}
				wait = unknownPause
			}
			if _, ok := complaint.allow(); (ok || talked) && ctx.Err() == nil {
				c.s.log.Warn("no connection to the orchestrator; what runs goes on", "address", address, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-c.s.orchs.changed:
			pause.reset()
		case <-time.After(wait):
		}
	}
}

// talk watches one orchestrator and reports to it until the stream ends, and
// tells whether it had begun.
func (c *connection) talk(ctx context.Context, base string) (talked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var reports sync.WaitGroup
	defer func() {
		c.lose(base)
		cancel()
		reports.Wait()
	}()
	resp, err := c.get(ctx, base+"/v1/devices/"+c.s.id+"/desired", "")
	if err != nil {
		return false, err
	}
	err = sse.Read(ctx, resp, func(e sse.Event) error {
		desired, err := readDesiredEvent(e)
		if err != nil || desired == nil {
			return err
		}
		if desired.Device != c.s.id {
			return decant.Errorf(decant.Internal, "the orchestrator sent what %s shall run", desired.Device)
		}
		if err := c.s.apply(*desired); err != nil {
			return err
		}
		if !talked {
			talked = true
			c.s.log.Info("connected to the orchestrator", "address", base)
			c.found(base)
			reports.Go(func() { c.report(ctx, base) })
		}
		return nil
	})
	if err == nil {
		err = decant.Errorf(decant.Unavailable, "the orchestrator closed the connection")
	}
	return talked, err
}

// readDesiredEvent returns nil for an event of another kind.
func readDesiredEvent(e sse.Event) (*decant.Desired, error) {
	switch e.Name {
	case "desired":
		var d decant.Desired
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return nil, decant.Errorf(decant.Internal, "cannot read the desired state: %w", err)
		}
		return &d, nil
	case "error":
		return nil, problem.Parse(e.Data)
	}
	return nil, nil
}

// report tells the orchestrator how things are, when they change and every few
// seconds, until ctx ends.
func (c *connection) report(ctx context.Context, base string) {
	var complaint throttle
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if err := c.reportOnce(ctx, base); err != nil && ctx.Err() == nil {
			if _, ok := complaint.allow(); ok {
				c.s.log.Warn("cannot report to the orchestrator", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.s.changed:
			sleep(ctx, reportGather)
		}
	}
}

// reportOnce sends the present state, and the events that no orchestrator has
// taken yet.
func (c *connection) reportOnce(ctx context.Context, base string) error {
	happened, number := c.s.events.pending()
	c.s.mu.Lock()
	applied := c.s.desired.Revision
	c.s.mu.Unlock()
	report := decant.Report{Device: c.s.Info(), Applied: applied, Instances: c.s.Instances(), Events: happened}
	err := c.post(ctx, base+"/v1/devices/"+c.s.id+"/report", report, nil)
	if err == nil {
		c.s.events.acknowledge(number)
	}
	return err
}

// lastReport tells the orchestrator, if there was one, that all has stopped, and
// closes the connections.
func (c *connection) lastReport() {
	c.mu.Lock()
	client, last := c.client, c.last
	c.mu.Unlock()
	if client == nil {
		return
	}
	defer client.CloseIdleConnections()
	if last == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := c.reportOnce(ctx, last); err != nil {
		c.s.log.Warn("cannot send the last report", "error", err)
	}
}

// renew is how KeepRenewed gets a new certificate.
func (c *connection) renew(ctx context.Context, csr []byte) (cred identity.Credential, err error) {
	base, err := c.await(ctx)
	if err != nil {
		return cred, err
	}
	err = c.post(ctx, base+"/v1/renew", struct {
		CSR []byte `json:"csr"`
	}{csr}, &cred)
	return cred, err
}

// fetch opens a blob at the orchestrator, and waits for one where there is
// none.
func (c *connection) fetch(d decant.Digest) blobs.Fetch {
	return func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		base, err := c.await(ctx)
		if err != nil {
			return nil, err
		}
		return c.get(ctx, base+"/v1/blobs/"+string(d), fmt.Sprintf("bytes=%d-", offset))
	}
}

func (c *connection) found(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.last = base, base
	close(c.ready)
}

func (c *connection) lose(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == base {
		c.base, c.ready = "", make(chan struct{})
	}
}

// await returns the orchestrator of now, once there is one.
func (c *connection) await(ctx context.Context) (string, error) {
	for {
		c.mu.Lock()
		base, ready := c.base, c.ready
		c.mu.Unlock()
		if base != "" {
			return base, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return "", decant.Errorf(decant.Unavailable, "there is no connection to an orchestrator")
		}
	}
}

// get opens url, from a range of it on where that is given. What it returns
// ends with an error when no byte comes for a while.
func (c *connection) get(ctx context.Context, url, byteRange string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	want := []int{http.StatusOK}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
		want = []int{http.StatusPartialContent}
		if byteRange == "bytes=0-" {
			want = append(want, http.StatusOK)
		}
	}
	resp, err := c.do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if !slices.Contains(want, resp.StatusCode) {
		cancel()
		resp.Body.Close()
		return nil, decant.Errorf(decant.Unavailable, "the orchestrator answers %s", resp.Status)
	}
	return sse.Alive(resp.Body, cancel), nil
}

// post sends in as JSON and reads the answer into out, unless out is nil.
func (c *connection) post(ctx context.Context, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// do returns an answer of 2xx, or the error that the orchestrator answered.
func (c *connection) do(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	resp, err := client.Do(req)
	if err != nil {
		if code := decant.CodeOf(err); code != decant.Internal {
			return nil, decant.Errorf(code, "cannot talk to the orchestrator: %w", err)
		}
		return nil, decant.Errorf(decant.Unavailable, "cannot reach the orchestrator: %w", err)
	}
	if err := problem.Read(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}
