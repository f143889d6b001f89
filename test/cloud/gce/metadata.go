package gce

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// projectNumber stands for the project in what the metadata server says of zones.
const projectNumber = "123456789012"

// Metadata is what an instance finds at 169.254.169.254. Its account, if it has one, is
// default with the given scopes. Calls to it are counted as metadata.
func (c *Cloud) Metadata(zone, name string, scopes ...string) http.Handler {
	email := projectNumber + "-compute@developer.gserviceaccount.com"
	values := map[string]func(*instance) string{
		"project/project-id":         func(*instance) string { return c.cfg.Project },
		"project/numeric-project-id": func(*instance) string { return projectNumber },
		"instance/id":                func(i *instance) string { return strconv.FormatUint(i.id, 10) },
		"instance/name":              func(i *instance) string { return i.name },
		"instance/zone":              func(i *instance) string { return "projects/" + projectNumber + "/zones/" + i.zone },
		"instance/hostname":          func(i *instance) string { return i.name + "." + i.zone + ".c." + c.cfg.Project + ".internal" },
		"universe/universe-domain":   func(*instance) string { return "googleapis.com" },
	}
	if len(scopes) > 0 {
		values["instance/service-accounts/"] = func(*instance) string { return "default/\n" + email + "/\n" }
		values["instance/service-accounts/default/email"] = func(*instance) string { return email }
		values["instance/service-accounts/default/scopes"] = func(*instance) string { return strings.Join(scopes, "\n") + "\n" }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail := func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
		}
		c.Calls.Serve(w, r, "metadata", fake.Style{Fail: fail, Throttle: fail}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			w.Header().Set("Server", "Metadata Server for VM")
			if r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("X-Forwarded-For") != "" {
				http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			i := c.instances[zone+"/"+name]
			path, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/")
			value := values[path]
			switch {
			case r.URL.Path == "/":
				io.WriteString(w, "computeMetadata/\n")
			case !ok || i == nil:
				http.NotFound(w, r)
			case value != nil:
				w.Header().Set("Content-Type", "application/text")
				io.WriteString(w, value(i))
			case path == "instance/service-accounts/default/token" && len(scopes) > 0:
				fake.JSON(w, http.StatusOK, c.issue(scopes))
			default:
				http.NotFound(w, r)
			}
		})
	})
}
