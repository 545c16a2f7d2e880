// Package deviceclient speaks to devices as an orchestrator: it looks at those
// that have not joined, offers them join codes, and reads logs. Each device is
// told by its key, whatever address it has.
package deviceclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/identity"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
)

// Client implements the orchestrator's view of devices.
type Client struct{ member *identity.Member }

// New makes a client that shows m's certificate.
func New(m *identity.Member) *Client { return &Client{member: m} }

// Describe asks a device, joined or not, what it is.
func (c *Client) Describe(ctx context.Context, id string, addresses []string) (decant.DeviceInfo, error) {
	var info decant.DeviceInfo
	resp, err := c.do(ctx, c.member.ToStranger(id), addresses, http.MethodGet, "/v1/device", nil)
	if err != nil {
		return info, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, int64(decant.MaxInfo)+1))
	if err != nil {
		return info, decant.Errorf(decant.Unavailable, "cannot hear what device %s says of itself: %w", id, err)
	}
	if decant.Bytes(len(said)) > decant.MaxInfo {
		return info, decant.Errorf(decant.Invalid, "device %s says more than %s of itself", id, decant.MaxInfo)
	}
	if err := json.Unmarshal(said, &info); err != nil {
		return info, decant.Errorf(decant.Invalid, "cannot read what device %s says of itself: %w", id, err)
	}
	return info, nil
}

// OfferCode gives a join code to a device that has not joined.
func (c *Client) OfferCode(ctx context.Context, id string, addresses []string, code string, orchestrators []string) error {
	body, err := json.Marshal(map[string]any{"code": code, "orchestrators": orchestrators})
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, c.member.ToStranger(id), addresses, http.MethodPost, "/v1/join-code", body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Log streams the log of an instance.
func (c *Client) Log(ctx context.Context, to transport.Target, app, component string, follow bool) (io.ReadCloser, error) {
	path := fmt.Sprintf("/v1/apps/%s/%s/log?follow=%t", url.PathEscape(app), url.PathEscape(component), follow)
	resp, err := c.do(ctx, c.member.ToDevice(to.Device), to.Addresses, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// dialTimeout bounds one attempt at one address, up to the answer's beginning.
const dialTimeout = 5 * time.Second

// do tries the addresses in order until one answers.
func (c *Client) do(ctx context.Context, config *tls.Config, addresses []string, method, path string, body []byte) (*http.Response, error) {
	err := error(decant.Errorf(decant.Unavailable, "the device has no address"))
	for _, address := range addresses {
		var resp *http.Response
		if resp, err = once(ctx, config, method, "https://"+address+path, body); err == nil {
			return resp, nil
		}
		if !errors.Is(err, decant.Unavailable) && !errors.Is(err, decant.Denied) || ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func once(ctx context.Context, config *tls.Config, method, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot ask %s: %w", url, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:       config,
		DisableKeepAlives:     true,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: dialTimeout,
	}
	resp, err := t.RoundTrip(req)
	switch {
	case errors.Is(err, decant.Denied):
		return nil, err
	case err != nil:
		return nil, decant.Errorf(decant.Unavailable, "cannot reach %s: %w", req.URL.Host, err)
	}
	if err := problem.Read(resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}
