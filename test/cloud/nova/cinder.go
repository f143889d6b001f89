package nova

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// client keeps no connections, which tests that look for leaks would find.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// cinder is Cinder as Nova asks it: for a user, and as a service.
type cinder struct{ url, token, service string }

func (n *Nova) cinder(project, token string) *cinder {
	return &cinder{n.cloud.CinderURL(project), token, n.service}
}

// tries is how often a request is made that Cinder fails at, as it does on SQLite where two write at once.
// Nova itself is as stubborn about attachments that are to be deleted.
const tries = 5

// call sends a request, and returns the status and the text of a refusal.
func (c *cinder) call(ctx context.Context, method, path string, in, out any) (status int, text string) {
	for n := range tries {
		if status, text = c.once(ctx, method, path, in, out); status != http.StatusInternalServerError {
			break
		}
		time.Sleep(100 * time.Millisecond << n)
	}
	return status, text
}

func (c *cinder) once(ctx context.Context, method, path string, in, out any) (status int, text string) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err.Error()
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("X-Service-Token", c.service)
	req.Header.Set("OpenStack-API-Version", "volume 3.44")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	if resp.StatusCode/100 != 2 {
		var fault map[string]struct{ Message string }
		if json.Unmarshal(b, &fault) == nil {
			for _, f := range fault {
				return resp.StatusCode, f.Message
			}
		}
		return resp.StatusCode, string(b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return 0, err.Error()
		}
	}
	return resp.StatusCode, ""
}

// projectOf asks Keystone whose a token is, once for each.
func (n *Nova) projectOf(ctx context.Context, token string) (project string, ok bool) {
	if token == "" {
		return "", false
	}
	n.mu.Lock()
	project, ok = n.tokens[token]
	n.mu.Unlock()
	if ok {
		return project, true
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.cloud.AuthURL+"/auth/tokens", nil)
	if err != nil {
		return "", false
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("X-Subject-Token", token)
	resp, err := client.Do(req)
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	var got struct {
		Token struct{ Project struct{ ID string } }
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&got) != nil {
		return "", false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tokens[token] = got.Token.Project.ID
	return got.Token.Project.ID, true
}
