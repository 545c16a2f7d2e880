// Package client speaks to an orchestrator as a user: what the command line
// does, a Go program can do. Errors carry decant's codes, so that
// errors.Is(err, decant.NotFound) and the like hold.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/sse"
)

// Client is a connection to an orchestrator. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	where string // for messages
	http  *http.Client
}

// New makes a client of the orchestrator at endpoint: the path of its socket,
// or an http:// URL on this machine together with the token of its data folder.
func New(endpoint, token string) (*Client, error) {
	if strings.HasPrefix(endpoint, "http://") || strings.HasPrefix(endpoint, "https://") {
		return &Client{base: strings.TrimSuffix(endpoint, "/"), token: token, where: endpoint, http: &http.Client{}}, nil
	}
	path := strings.TrimPrefix(endpoint, "unix://")
	if path == "" {
		return nil, decant.Errorf(decant.Invalid, "no orchestrator is named")
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{base: "http://decant", where: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Site describes the site the orchestrator is of.
type Site struct {
	Site      string   `json:"site"`
	Version   string   `json:"version"`
	Pin       string   `json:"pin"`
	Addresses []string `json:"addresses"`
}

// JoinCode lets one device join until it expires.
type JoinCode struct {
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

// Site returns which site the orchestrator is of.
func (c *Client) Site(ctx context.Context) (Site, error) {
	return call[Site](ctx, c, "GET", "/v1/site", nil)
}

// NewJoinCode makes a code that lets one device join.
func (c *Client) NewJoinCode(ctx context.Context) (JoinCode, error) {
	return call[JoinCode](ctx, c, "POST", "/v1/join-codes", nil)
}

// Devices returns all devices that are known, by name.
func (c *Client) Devices(ctx context.Context) ([]decant.Device, error) {
	return call[[]decant.Device](ctx, c, "GET", "/v1/devices", nil)
}

// Device returns a device, by name or ID.
func (c *Client) Device(ctx context.Context, name string) (decant.Device, error) {
	return call[decant.Device](ctx, c, "GET", "/v1/devices/"+url.PathEscape(name), nil)
}

// ApproveDevice lets a device join that was started without a code.
func (c *Client) ApproveDevice(ctx context.Context, name string) error {
	return c.act(ctx, "POST", "/v1/devices/"+url.PathEscape(name)+"/approve")
}

// RemoveDevice forgets a device.
func (c *Client) RemoveDevice(ctx context.Context, name string) error {
	return c.act(ctx, "DELETE", "/v1/devices/"+url.PathEscape(name))
}

// Packages returns all packages, by name and version.
func (c *Client) Packages(ctx context.Context) ([]decant.Package, error) {
	return call[[]decant.Package](ctx, c, "GET", "/v1/packages", nil)
}

// Package returns the newest version that matches name or name@range.
func (c *Client) Package(ctx context.Context, ref string) (decant.Package, error) {
	return call[decant.Package](ctx, c, "GET", "/v1/packages/"+url.PathEscape(ref), nil)
}

// RemovePackage removes a version that no application uses.
func (c *Client) RemovePackage(ctx context.Context, name, version string) error {
	return c.act(ctx, "DELETE", "/v1/packages/"+url.PathEscape(name)+"/"+url.PathEscape(version))
}

// HasBlob reports whether the orchestrator stores a blob.
func (c *Client) HasBlob(ctx context.Context, d decant.Digest) (bool, error) {
	_, err := call[struct{ Size decant.Bytes }](ctx, c, "GET", "/v1/blobs/"+string(d), nil)
	if errors.Is(err, decant.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// PutBlob stores the bytes of r, of which d is the digest. Corrupt: it is not.
func (c *Client) PutBlob(ctx context.Context, d decant.Digest, size decant.Bytes, r io.Reader) error {
	req, err := c.request(ctx, "PUT", "/v1/blobs/"+string(d), r)
	if err != nil {
		return err
	}
	req.ContentLength = int64(size)
	req.Header.Set("Content-Type", "application/octet-stream")
	return c.finish(req)
}

// Push makes a package of blobs that were put before. Conflict: this version
// is there with other bytes.
func (c *Client) Push(ctx context.Context, spec decant.PackageSpec, blobs []decant.Blob) (decant.Package, error) {
	return call[decant.Package](ctx, c, "POST", "/v1/packages", map[string]any{"spec": spec, "blobs": blobs})
}

// Deploy deploys an application. after is the revision the change is based on,
// 0 for any. Conflict: it has another.
func (c *Client) Deploy(ctx context.Context, app decant.Application, after int) (decant.Deployment, error) {
	return call[decant.Deployment](ctx, c, "PUT", fmt.Sprintf("/v1/apps/%s?after=%d", url.PathEscape(app.Name), after), app)
}

// Deployments returns all applications, by name.
func (c *Client) Deployments(ctx context.Context) ([]decant.Deployment, error) {
	return call[[]decant.Deployment](ctx, c, "GET", "/v1/apps", nil)
}

// Deployment returns an application.
func (c *Client) Deployment(ctx context.Context, name string) (decant.Deployment, error) {
	return call[decant.Deployment](ctx, c, "GET", "/v1/apps/"+url.PathEscape(name), nil)
}

// History returns all revisions of an application, the newest first.
func (c *Client) History(ctx context.Context, name string) ([]decant.Deployment, error) {
	return call[[]decant.Deployment](ctx, c, "GET", "/v1/apps/"+url.PathEscape(name)+"/history", nil)
}

// Undeploy takes an application off its devices.
func (c *Client) Undeploy(ctx context.Context, name string) error {
	return c.act(ctx, "DELETE", "/v1/apps/"+url.PathEscape(name))
}

// WatchDeployment calls f with an application as it is now and whenever it
// changes, until f returns an error, which it returns. NotFound: it is gone.
func (c *Client) WatchDeployment(ctx context.Context, name string, f func(decant.Deployment) error) error {
	return watch(ctx, c, "/v1/apps/"+url.PathEscape(name)+"/watch", f)
}

// Events returns the newest events, the oldest of them first.
func (c *Client) Events(ctx context.Context, newest int) ([]decant.Event, error) {
	return call[[]decant.Event](ctx, c, "GET", fmt.Sprintf("/v1/events?newest=%d", newest), nil)
}

// WatchEvents calls f with the newest events and then with each that happens,
// until f returns an error, which it returns.
func (c *Client) WatchEvents(ctx context.Context, newest int, f func(decant.Event) error) error {
	return watch(ctx, c, fmt.Sprintf("/v1/events/watch?newest=%d", newest), f)
}

// Call names what Invoke calls. Component and Function may be empty: the
// application's entry, and the component's own.
type Call struct {
	Application string
	Component   string
	Function    string
	ContentType string
}

// Invoke calls a function with the bytes of body and returns the answer and
// its content type.
func (c *Client) Invoke(ctx context.Context, to Call, body []byte) (answer []byte, contentType string, err error) {
	q := url.Values{}
	for k, v := range map[string]string{"component": to.Component, "function": to.Function} {
		if v != "" {
			q.Set(k, v)
		}
	}
	req, err := c.request(ctx, "POST", "/v1/apps/"+url.PathEscape(to.Application)+"/invoke?"+q.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if to.ContentType != "" {
		req.Header.Set("Content-Type", to.ContentType)
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return answer, resp.Header.Get("Content-Type"), err
}

// Log streams the log of a component as lines of text.
func (c *Client) Log(ctx context.Context, app, component string, follow bool) (io.ReadCloser, error) {
	req, err := c.request(ctx, "GET", fmt.Sprintf("/v1/apps/%s/log?component=%s&follow=%t", url.PathEscape(app), url.QueryEscape(component), follow), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot make a request to %s: %w", c.where, err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// do sends a request; a response that is not a success becomes its error.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		if ctxErr := req.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		if dial, ok := errors.AsType[*net.OpError](err); req.Method == http.MethodPost && (!ok || dial.Op != "dial") {
			return nil, decant.Errorf(decant.Internal, "the orchestrator at %s was lost before its answer, the request may have been executed: %w", c.where, errors.Unwrap(err))
		}
		e := decant.Errorf(decant.Unavailable, "cannot reach an orchestrator at %s: %w", c.where, errors.Unwrap(err))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, e.WithHelp("start one with `decant up`, or name it with --orchestrator")
		}
		return nil, e
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem.Read(resp)
	}
	return resp, nil
}

func (c *Client) finish(req *http.Request) error {
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) act(ctx context.Context, method, path string) error {
	req, err := c.request(ctx, method, path, nil)
	if err != nil {
		return err
	}
	return c.finish(req)
}

// call sends in, if it is not nil, as JSON and reads a T.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return out, err
		}
		body = bytes.NewReader(data)
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return out, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, decant.Errorf(decant.Internal, "cannot read the answer of %s: %w", c.where, err)
	}
	return out, nil
}

// watch calls f with the T of each server-sent event.
func watch[T any](ctx context.Context, c *Client, path string, f func(T) error) error {
	req, err := c.request(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	stopped := false // by us, not by the connection
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	err = sse.Read(reading, sse.Alive(resp.Body, cancel), func(e sse.Event) error {
		err := receive(c, e, f)
		stopped = err != nil
		return err
	})
	if stopped || ctx.Err() != nil || errors.Is(err, decant.Exhausted) {
		return err
	}
	return decant.Errorf(decant.Unavailable, "the orchestrator at %s went away", c.where)
}

// receive calls f with the T of an event, or returns the error that it is.
func receive[T any](c *Client, e sse.Event, f func(T) error) error {
	if e.Name == "error" {
		return problem.Parse(e.Data)
	}
	var v T
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return decant.Errorf(decant.Internal, "cannot read an event of %s: %w", c.where, err)
	}
	return f(v)
}
