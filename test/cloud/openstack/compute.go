package openstack

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// AddCompute puts a Nova that answers at url into the catalogue of both regions, and returns a
// token of the role by which services know each other. It may be called again with another URL.
func (c *Cloud) AddCompute(ctx context.Context, url string) (token string, err error) {
	s, err := c.login(ctx)
	if err != nil {
		return "", err
	}
	var old struct{ Services []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, c.AuthURL+"/services?type=compute", nil, &old); err != nil {
		return "", err
	}
	for _, service := range old.Services { // its endpoints go with it
		if err := s.call(ctx, http.MethodDelete, c.AuthURL+"/services/"+service.ID, nil, nil); err != nil {
			return "", err
		}
	}
	service, err := s.make(ctx, "service", object{"type": "compute", "name": "nova"})
	if err != nil {
		return "", err
	}
	for _, region := range []string{Region, RegionTLS} {
		if err := s.endpoint(ctx, service, region, url); err != nil {
			return "", err
		}
	}
	return c.serviceToken(ctx, s)
}

// serviceToken makes the user nova with the role "service", if there is none, and logs in.
func (c *Cloud) serviceToken(ctx context.Context, s *session) (string, error) {
	var roles struct{ Roles []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, c.AuthURL+"/roles?name=service", nil, &roles); err != nil {
		return "", err
	}
	var users struct{ Users []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, c.AuthURL+"/users?name=nova", nil, &users); err != nil {
		return "", err
	}
	if len(users.Users) == 0 {
		var role string
		if len(roles.Roles) > 0 {
			role = roles.Roles[0].ID
		} else {
			var err error
			if role, err = s.make(ctx, "role", object{"name": "service"}); err != nil {
				return "", err
			}
		}
		project, err := s.projectID(ctx, "service")
		if err != nil {
			return "", err
		}
		user, err := s.make(ctx, "user", object{"name": "nova", "password": c.Password, "domain_id": "default"})
		if err != nil {
			return "", err
		}
		if err := s.call(ctx, http.MethodPut, c.AuthURL+"/projects/"+project+"/users/"+user+"/roles/"+role, nil, nil); err != nil {
			return "", err
		}
	}
	nova := &session{c: c}
	if err := nova.call(ctx, http.MethodPost, c.AuthURL+"/auth/tokens", passwordAuth("nova", c.Password, "service"), nil); err != nil {
		return "", err
	}
	return nova.token, nil
}

// NewProject makes a project with nothing in it, of which [User] is a member, and returns its ID.
func (c *Cloud) NewProject(ctx context.Context, name string) (string, error) {
	s, err := c.session(ctx)
	if err != nil {
		return "", err
	}
	project, err := s.make(ctx, "project", object{"name": name, "domain_id": "default"})
	if err != nil {
		return "", err
	}
	return project, s.call(ctx, http.MethodPut, c.AuthURL+"/projects/"+project+"/users/"+s.user+"/roles/"+s.roles["member"], nil, nil)
}

// session is one of the administrator's that is kept, who has been told who [User] is: a login costs a tenth of
// a second, and each test wants a project.
func (c *Cloud) session(ctx context.Context) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && time.Since(c.kept.began) < 20*time.Minute {
		return c.kept, nil
	}
	s, err := c.login(ctx)
	if err != nil {
		return nil, err
	}
	var users struct{ Users []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, c.AuthURL+"/users?name="+User, nil, &users); err != nil {
		return nil, err
	}
	if len(users.Users) != 1 {
		return nil, fmt.Errorf("%d users are called %q", len(users.Users), User)
	}
	s.user = users.Users[0].ID
	c.kept = s
	return s, nil
}

// CinderURL is where Cinder has a project.
func (c *Cloud) CinderURL(project string) string {
	return "http://" + c.address.At(8776) + "/v3/" + project
}
