package store

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Many at once get in nobody's way: of those who want one name one gets it, and no blob is collected
// that somebody is about to use.
func TestConcurrent(t *testing.T) {
	s := opened(t, t.TempDir())
	body, layer := bundle(t, "c", content("c")...), zipped(t, archive(t, content("i")...))
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := range rounds {
				r, err := s.Create(t.Context(), fmt.Sprintf("c%d-%d:latest", g, i), bytes.NewReader(body))
				if err == nil && i%2 == 0 {
					err = s.Remove(r.Plugin.ID)
				}
				if err != nil {
					t.Error(err)
				}
				release := s.Hold()
				img, err := added(t, s, layer)
				if err == nil {
					_, err = s.Install(t.Context(), fmt.Sprintf("i%d:latest", i), "", img, nil, nil) // all want the same names
				}
				release()
				if err != nil && !errors.Is(err, errdefs.ErrExists) {
					t.Error(err)
				}
				if err := s.GC(); err != nil {
					t.Error(err)
				}
				for _, r := range s.Records() {
					if err := s.Save(r); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Records()); n != 6*rounds/2+rounds {
		t.Errorf("there are %d plugins", n)
	}
	consistent(t, s)
}

// added adds the blobs of a plugin of one layer, as several at once do that pull the same.
func added(t *testing.T, s *Store, layer []byte) (Image, error) {
	raw := fmt.Appendf(nil, config, "i", "i")
	img := Image{Config: describe(MediaTypeConfig, raw)}
	img.Layers = append(img.Layers, describe(MediaTypeLayerGzip, layer))
	m, err := BuildManifest(img.Config, img.Layers)
	img.Manifest = describe(MediaTypeManifest, m)
	return img, errors.Join(err, s.Add(t.Context(), bytes.NewReader(layer), img.Layers[0]),
		s.Add(t.Context(), bytes.NewReader(raw), img.Config), s.Add(t.Context(), bytes.NewReader(m), img.Manifest))
}
