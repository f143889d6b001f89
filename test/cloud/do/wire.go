package do

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

// The answers, as docs.digitalocean.com/reference/api has them. They are no types of the
// client's, so that a client's mistake about a field is seen.

type regionJSON struct {
	Slug      string   `json:"slug"`
	Name      string   `json:"name"`
	Sizes     []string `json:"sizes"`
	Features  []string `json:"features"`
	Available bool     `json:"available"`
}

func region(slug string) regionJSON {
	return regionJSON{
		Slug: slug, Name: strings.ToUpper(slug), Sizes: []string{"s-1vcpu-1gb", "s-2vcpu-4gb"},
		Features: []string{"storage", "metadata"}, Available: true,
	}
}

type volumeJSON struct {
	ID              string     `json:"id"`
	Region          regionJSON `json:"region"`
	DropletIDs      []int      `json:"droplet_ids"`
	Name            string     `json:"name"`
	Description     string     `json:"description"`
	SizeGigabytes   int64      `json:"size_gigabytes"`
	CreatedAt       string     `json:"created_at"`
	FilesystemType  string     `json:"filesystem_type"`
	FilesystemLabel string     `json:"filesystem_label"`
	Tags            []string   `json:"tags"`
}

type snapshotJSON struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Regions       []string `json:"regions"`
	CreatedAt     string   `json:"created_at"`
	ResourceID    string   `json:"resource_id"`
	ResourceType  string   `json:"resource_type"`
	MinDiskSize   int64    `json:"min_disk_size"`
	SizeGigabytes float64  `json:"size_gigabytes"`
	Tags          []string `json:"tags"`
}

type actionJSON struct {
	ID           int         `json:"id"`
	Status       string      `json:"status"`
	Type         string      `json:"type"`
	StartedAt    string      `json:"started_at"`
	CompletedAt  *string     `json:"completed_at"`
	ResourceID   *int        `json:"resource_id"`
	ResourceType string      `json:"resource_type"`
	Region       *regionJSON `json:"region"`
	RegionSlug   string      `json:"region_slug"`
}

// problem is an answer that says no.
type problem struct {
	status      int
	id, message string
}

func (p *problem) Error() string { return p.message }

func notFound(message string) error {
	return &problem{http.StatusNotFound, "not_found", message}
}

func unprocessable(format string, args ...any) error {
	return &problem{http.StatusUnprocessableEntity, "unprocessable_entity", fmt.Sprintf(format, args...)}
}

func conflict(message string) error {
	return &problem{http.StatusConflict, "conflict", message}
}

func writeError(w http.ResponseWriter, err error) {
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{http.StatusInternalServerError, "server_error", err.Error()}
	}
	fake.JSON(w, p.status, map[string]string{"id": p.id, "message": p.message, "request_id": newUUID()})
}

// read decodes the body of a call.
func read(r *http.Request, v any) error {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return &problem{http.StatusBadRequest, "bad_request", "error parsing request body: " + err.Error()}
	}
	return nil
}

const (
	perPage    = 20
	maxPerPage = 200
)

// paged answers with one page of a list.
func paged[T any](r *http.Request, name string, all []T) (int, any, error) {
	page, per := number(r, "page", 1), min(number(r, "per_page", perPage), maxPerPage)
	from := min((page-1)*per, len(all))
	last := max((len(all)+per-1)/per, 1)
	links := map[string]any{}
	pages := map[string]string{}
	if page > 1 {
		pages["first"], pages["prev"] = pageURL(r, 1), pageURL(r, page-1)
	}
	if page < last {
		pages["next"], pages["last"] = pageURL(r, page+1), pageURL(r, last)
	}
	if len(pages) > 0 {
		links["pages"] = pages
	}
	return http.StatusOK, map[string]any{
		name: all[from:min(from+per, len(all))], "links": links, "meta": map[string]int{"total": len(all)},
	}, nil
}

// number reads a positive number of the query.
func number(r *http.Request, key string, otherwise int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil || n < 1 {
		return otherwise
	}
	return n
}

func pageURL(r *http.Request, page int) string {
	u := *r.URL
	u.Scheme, u.Host = "https", "api.digitalocean.com" // whatever name the server was called by
	q := u.Query()
	q.Set("page", strconv.Itoa(page))
	u.RawQuery = q.Encode()
	return u.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// newUUID is in the form of those of volumes, and tells nothing.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x10, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
