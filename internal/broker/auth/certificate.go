package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"regexp"
	"strings"
)

// Names turns the distinguished name of a client's certificate into the name of a user, by the first rule that matches
// (ssl.principal.mapping.rules).
type Names struct{ rules []nameRule }

type nameRule struct {
	pattern     *regexp.Regexp // nil: DEFAULT, the whole name
	replacement string
	fold        string // U, L or none
}

// ParseNames reads rules: RULE:pattern/replacement/ with L or U at the end, or DEFAULT, separated by commas. Patterns
// are Go's regular expressions and match the whole name; $1 is the first group. "" is DEFAULT.
func ParseNames(s string) (Names, error) {
	var n Names
	rest := strings.TrimSpace(s)
	for rest != "" {
		if after, ok := strings.CutPrefix(rest, "DEFAULT"); ok {
			n.rules = append(n.rules, nameRule{})
			rest = strings.TrimLeft(after, ", \t\n")
			continue
		}
		body, ok := strings.CutPrefix(rest, "RULE:")
		pattern, body, ok2 := cutSlash(body)
		replacement, body, ok3 := cutSlash(body)
		if !ok || !ok2 || !ok3 {
			return n, fmt.Errorf("rule %q is neither DEFAULT nor RULE:pattern/replacement/", rest)
		}
		r := nameRule{replacement: groups.ReplaceAllString(replacement, "$${$1}")}
		if body != "" && (body[0] == 'U' || body[0] == 'L') {
			r.fold, body = body[:1], body[1:]
		}
		var err error
		if r.pattern, err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
			return n, fmt.Errorf("rule %q: %w", rest, err)
		}
		n.rules = append(n.rules, r)
		if body = strings.TrimLeft(body, " \t\n"); body != "" && body[0] != ',' {
			return n, fmt.Errorf("rule %q has %q behind it", rest, body)
		}
		rest = strings.TrimLeft(body, ", \t\n")
	}
	return n, nil
}

var groups = regexp.MustCompile(`\$(\d+)`)

// cutSlash cuts at the first slash that no backslash precedes.
func cutSlash(s string) (before, after string, ok bool) {
	for i := range len(s) {
		if s[i] == '/' && (i == 0 || s[i-1] != '\\') {
			return strings.ReplaceAll(s[:i], `\/`, "/"), s[i+1:], true
		}
	}
	return s, "", false
}

// Principal returns the principal of a certificate.
func (n Names) Principal(c *x509.Certificate) (string, error) {
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &rdn); err != nil {
		return "", fail("the certificate's subject cannot be read: %v", err)
	}
	name := rdn.String()
	for _, r := range n.rules {
		if r.pattern == nil {
			return "User:" + name, nil
		}
		if !r.pattern.MatchString(name) {
			continue
		}
		user := r.pattern.ReplaceAllString(name, r.replacement)
		switch r.fold {
		case "L":
			user = strings.ToLower(user)
		case "U":
			user = strings.ToUpper(user)
		}
		return "User:" + user, nil
	}
	if len(n.rules) == 0 {
		return "User:" + name, nil
	}
	return "", fail("no rule names the user of certificate %q", name)
}
