package openstack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// object is a JSON object.
type object map[string]any

// session is the administrator, logged in.
type session struct {
	c       *Cloud
	token   string
	project string
	roles   map[string]string // the ids of those it has
	user    string            // the id of [User], where it is known
	began   time.Time
}

func passwordAuth(user, password, project string) object {
	domain := object{"name": Domain}
	return object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": object{"name": user, "domain": domain, "password": password}}},
		"scope":    object{"project": object{"name": project, "domain": domain}},
	}}
}

func (c *Cloud) login(ctx context.Context) (*session, error) {
	s := &session{c: c, roles: map[string]string{}, began: time.Now()}
	var got struct {
		Token struct {
			Project struct{ ID string }
			Roles   []struct{ ID, Name string }
		}
	}
	if err := s.call(ctx, http.MethodPost, c.AuthURL+"/auth/tokens", passwordAuth(admin, c.Password, admin), &got); err != nil {
		return nil, err
	}
	s.project = got.Token.Project.ID
	for _, r := range got.Token.Roles {
		s.roles[r.Name] = r.ID
	}
	return s, nil
}

// client keeps no connections, which tests that look for leaks would find.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// call sends a request and decodes the answer, unless out is nil.
func (s *session) call(ctx context.Context, method, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		req.Header.Set("X-Auth-Token", s.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	if token := resp.Header.Get("X-Subject-Token"); token != "" {
		s.token = token
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (s *session) cinder(path string) string {
	return "http://" + s.c.address.At(8776) + "/v3/" + s.project + path
}

// make creates an object of Keystone and returns its id.
func (s *session) make(ctx context.Context, kind string, fields object) (string, error) {
	var got map[string]struct{ ID string }
	err := s.call(ctx, http.MethodPost, s.c.AuthURL+"/"+kind+"s", object{kind: fields}, &got)
	return got[kind].ID, err
}

// populate makes the projects, the users and the catalogue.
func (c *Cloud) populate(ctx context.Context) error {
	s, err := c.login(ctx)
	if err != nil {
		return err
	}
	for _, u := range []struct{ project, name, role string }{{"service", "cinder", "admin"}, {Project, User, "member"}} {
		project, err := s.make(ctx, "project", object{"name": u.project, "domain_id": "default"})
		if err != nil {
			return err
		}
		user, err := s.make(ctx, "user", object{"name": u.name, "password": c.Password, "domain_id": "default"})
		if err != nil {
			return err
		}
		url := fmt.Sprintf("%s/projects/%s/users/%s/roles/%s", c.AuthURL, project, user, s.roles[u.role])
		if err := s.call(ctx, http.MethodPut, url, nil, nil); err != nil {
			return err
		}
	}
	if _, err := s.make(ctx, "region", object{"id": RegionTLS}); err != nil {
		return err
	}
	var got struct{ Services []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, c.AuthURL+"/services?type=identity", nil, &got); err != nil {
		return err
	}
	if len(got.Services) != 1 {
		return fmt.Errorf("keystone has %d services of identity", len(got.Services))
	}
	if err := s.endpoint(ctx, got.Services[0].ID, RegionTLS, c.AuthURLTLS); err != nil {
		return err
	}
	for kind, name := range map[string]string{"volumev3": "cinderv3", "block-storage": "cinder"} {
		service, err := s.make(ctx, "service", object{"type": kind, "name": name})
		if err != nil {
			return err
		}
		for region, base := range map[string]string{Region: "http://" + c.address.At(8776), RegionTLS: "https://" + c.address.At(8743)} {
			if err := s.endpoint(ctx, service, region, base+"/v3/%(project_id)s"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) endpoint(ctx context.Context, service, region, url string) error {
	_, err := s.make(ctx, "endpoint", object{"service_id": service, "interface": "public", "region_id": region, "url": url})
	return err
}

// SetQuota limits how many volumes the project has, and how many gigabytes; -1 is no limit.
func (c *Cloud) SetQuota(ctx context.Context, volumes, gigabytes int) error {
	s, err := c.login(ctx)
	if err != nil {
		return err
	}
	project, err := s.projectID(ctx, Project)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPut, s.cinder("/os-quota-sets/"+project), object{"quota_set": object{"volumes": volumes, "gigabytes": gigabytes}}, nil)
}

func (s *session) projectID(ctx context.Context, name string) (string, error) {
	var got struct{ Projects []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, s.c.AuthURL+"/projects?name="+name, nil, &got); err != nil {
		return "", err
	}
	if len(got.Projects) != 1 {
		return "", fmt.Errorf("%d projects are called %q", len(got.Projects), name)
	}
	return got.Projects[0].ID, nil
}

// ResetState makes a volume look as an administrator would after a failure: "error", "available".
func (c *Cloud) ResetState(ctx context.Context, volumeID, status string) error {
	s, err := c.login(ctx)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, s.cinder("/volumes/"+volumeID+"/action"), object{"os-reset_status": object{"status": strings.ToLower(status)}}, nil)
}
