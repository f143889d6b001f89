package check

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
)

// badge is what a badge says, and the color in which it does.
func (r *Report) badge() (message, name, color string) {
	decided := r.Count(Pass) + len(r.Failed())
	message = fmt.Sprintf("%s %d/%d", r.Verdict, r.Count(Pass), decided)
	switch {
	case r.Interrupted || decided == 0:
		return "unknown", "lightgrey", "#9f9f9f"
	case r.Verdict == Conforms:
		return message, "brightgreen", "#4c1"
	case r.Verdict == DeviatesFrom:
		return message, "yellow", "#dfb317"
	}
	return message, "red", "#e05d44"
}

const badgeLabel = "docker plugin"

// WriteShields writes a badge as the JSON that shields.io draws
// (shields.io/badges/endpoint-badge).
func (r *Report) WriteShields(w io.Writer) error {
	message, name, _ := r.badge()
	return json.NewEncoder(w).Encode(map[string]any{
		"schemaVersion": 1, "label": badgeLabel, "message": message, "color": name, "isError": r.Verdict == IsBroken,
	})
}

// WriteSVG writes a badge as a picture.
func (r *Report) WriteSVG(w io.Writer) error {
	message, _, color := r.badge()
	const letter, margin = 7, 10 // a letter of 11 pixels is about so wide
	left, right := len(badgeLabel)*letter+margin, len(message)*letter+margin
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="20" role="img" aria-label="%[2]s: %[3]s">
<title>%[2]s: %[3]s</title>
<rect width="%[1]d" height="20" rx="3" fill="#555"/>
<path fill="%[4]s" d="M%[5]d 0h%[6]dq3 0 3 3v14q0 3-3 3h-%[6]dz"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="%[7]d" y="14">%[2]s</text>
<text x="%[8]d" y="14">%[3]s</text>
</g>
</svg>
`, left+right, badgeLabel, html.EscapeString(message), color, left, right-3, left/2, left+right/2)
	return err
}
