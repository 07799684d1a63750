// A client of a control socket.
//
// Invariant: an answer is read to its end, or it is an error; every error is an *Error of the
// server, or says what is wrong with the way to it.

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Client asks a server through its control socket.
type Client struct {
	path string
	http http.Client
}

// dialTime is how long a server may take to accept a connection.
const dialTime = 5 * time.Second

// NewClient makes a client for the socket of a path.
func NewClient(path string) *Client {
	c := &Client{path: path}
	dialer := net.Dialer{Timeout: dialTime}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		ResponseHeaderTimeout: 0, // a change takes as long as storage and clients do
	}
	return c
}

// Close closes the connections that are kept for further questions.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do asks a question, whose body is given as JSON unless it is nil, and reads the answer into to.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body,
	to any) error {
	answer, err := c.ask(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("the answer of %s ended too soon: %w", c.path, err)
	}
	if raw, ok := to.(*json.RawMessage); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s does not answer as ringnbd does: %w", c.path, err)
	}
	return nil
}

// Events calls each with every event, as the line that the server wrote, until each returns an
// error, the context ends, or the server does.
func (c *Client) Events(ctx context.Context, each func(line []byte, event Event) error) error {
	answer, err := c.ask(ctx, http.MethodGet, "/v1/events", nil, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("%s does not answer as ringnbd does: %w", c.path, err)
		}
		if err := each(lines.Bytes(), event); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case err == nil, ctx.Err() != nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: events end without an end: the server has died, or has cut this "+
			"client, which did not read them", c.path)
	default:
		return fmt.Errorf("%s: %w", c.path, err)
	}
}

// ask sends a question; an answer that is an error becomes one.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values,
	body any) (*http.Response, error) {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: "ringnbd", Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), text)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	e := &Error{Status: answer.StatusCode}
	if json.NewDecoder(answer.Body).Decode(e) != nil || e.Text == "" {
		e.Text = fmt.Sprintf("%s answers %s, and does not say why", c.path, answer.Status)
	}
	return nil, e
}

// SocketError is about a control socket that cannot be reached.
type SocketError struct {
	Path string
	Err  error
}

func (e *SocketError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return "no server listens at " + e.Path + ": there is no such socket"
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "no server listens at " + e.Path + " any more"
	case errors.Is(e.Err, fs.ErrPermission):
		return e.Path + ": this user may not use this control socket"
	}
	return e.Path + ": " + e.Err.Error()
}

func (e *SocketError) Unwrap() error { return e.Err }

// explain says what is wrong with the way to the server.
func (c *Client) explain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return &SocketError{Path: c.path, Err: dial.Err}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the server closed the connection without an answer")
	}
	return &SocketError{Path: c.path, Err: err}
}
