package lint

import (
	"bytes"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

const placeReason = "the project does not know where it is checked out; what lies outside comes by a flag or the environment"

var (
	// absolute is a path into somebody's machine. Places that every machine has, such as /dev or /proc, are none.
	absolute = regexp.MustCompile("(?:^|[\\s\"'`=(:])(/(?:home|root|Users|work|workspace|mnt|srv)/[\\w.-]+)")
	climbing = regexp.MustCompile(`(?:\.\./)+[\w-][\w./-]*`)
)

// Text looks through every text file below dir for paths that name the machine or leave the checkout. .ci/run alone may
// look beside it.
func Text(dir string) ([]Finding, error) {
	var all []Finding
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == ".git" || name == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := fs.ReadFile(files, name)
		if err != nil || bytes.IndexByte(b, 0) >= 0 {
			return err
		}
		for i, text := range strings.Split(string(b), "\n") {
			for _, m := range absolute.FindAllStringSubmatch(text, -1) {
				all = append(all, Finding{token.Position{Filename: name, Line: i + 1}, "place", m[1] + ": " + placeReason})
			}
			for _, up := range climbing.FindAllString(text, -1) {
				if name != ".ci/run" && !inside(files, name, up) {
					all = append(all, Finding{token.Position{Filename: name, Line: i + 1}, "place", up + " leaves the checkout: " + placeReason})
				}
			}
		}
		return nil
	})
	return all, err
}

// inside says whether a relative path written in the file name leads to something in the checkout.
func inside(files fs.FS, name, up string) bool {
	target := path.Join(path.Dir(name), strings.TrimRight(up, "./"))
	if !filepath.IsLocal(target) {
		return false
	}
	_, err := fs.Stat(files, target)
	return err == nil
}
