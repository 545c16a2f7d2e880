// Package yaml reads the files that people write: strictly, with errors that
// speak of the file and not of how it is read.
package yaml

import (
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/decant-project/decant"
)

// Unmarshal reads data, by the JSON names of into's members. Invalid: it is not
// YAML, or has a member that into has not.
func Unmarshal(data []byte, into any) error {
	err := yaml.UnmarshalStrict(data, into)
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, how := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "json: ", "yaml: "} {
		text = strings.TrimPrefix(text, how)
	}
	return decant.Errorf(decant.Invalid, "%s", text)
}
