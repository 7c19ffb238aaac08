// Makes the golden cases of ../golden: random steps carried out by the Go libraries that the Kubernetes API server
// uses. Run from this directory: go run . apply 600 20 > ../golden/apply.jsonl; go run . strategic 300 21 > ../golden/strategic.jsonl
// (how many, and the seed).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"

	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

const schemaYAML = typed.YAMLObject(`
types:
- name: root
  map:
    fields:
    - {name: spec, type: {namedType: spec}}
- name: spec
  map:
    fields:
    - {name: text, type: {scalar: string}}
    - {name: number, type: {scalar: numeric}}
    - {name: pieces, type: {list: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: tags, type: {list: {elementType: {scalar: string}, elementRelationship: associative}}}
    - {name: items, type: {list: {elementType: {namedType: item}, elementRelationship: associative, keys: [name]}}}
    - {name: ports, type: {list: {elementType: {namedType: port}, elementRelationship: associative, keys: [port, protocol]}}}
    - {name: labels, type: {map: {elementType: {scalar: string}}}}
    - {name: groups, type: {map: {elementType: {namedType: inner}}}}
    - {name: whole, type: {map: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: inner, type: {namedType: inner}}
    - {name: free, type: {namedType: __untyped_deduced_}}
- name: inner
  map:
    fields:
    - {name: a, type: {scalar: string}}
    - {name: b, type: {scalar: string}}
    - {name: deep, type: {map: {fields: [{name: x, type: {scalar: string}}, {name: "y", type: {scalar: string}}]}}}
- name: item
  map:
    fields:
    - {name: name, type: {scalar: string}}
    - {name: value, type: {scalar: numeric}}
    - {name: inner, type: {namedType: inner}}
    - {name: tags, type: {list: {elementType: {scalar: string}, elementRelationship: associative}}}
- name: port
  map:
    fields:
    - {name: port, type: {scalar: numeric}}
    - {name: protocol, type: {scalar: string}, default: TCP}
    - {name: name, type: {scalar: string}}
- name: __untyped_atomic_
  scalar: untyped
  list: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
  map: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
- name: __untyped_deduced_
  scalar: untyped
  list: {elementType: {namedType: __untyped_atomic_}, elementRelationship: atomic}
  map: {elementType: {namedType: __untyped_deduced_}, elementRelationship: separable}
`)

type same struct{}

func (same) Convert(o *typed.TypedValue, _ fieldpath.APIVersion) (*typed.TypedValue, error) {
	return o, nil
}
func (same) IsMissingVersionError(error) bool { return false }

type generator struct {
	*rand.Rand
	duplicates bool
}

func (g generator) maybe(p float64) bool        { return g.Float64() < p }
func (g generator) word(words ...string) string { return words[g.Intn(len(words))] }

func (g generator) strings() []any {
	out := []any{}
	seen := map[string]bool{}
	for i := g.Intn(5); i > 0; i-- {
		w := g.word("a", "b", "c", "d", "e")
		if seen[w] && !g.duplicates {
			continue
		}
		seen[w] = true
		out = append(out, w)
	}
	return out
}

func (g generator) table() map[string]any {
	out := map[string]any{}
	for i := g.Intn(4); i > 0; i-- {
		out[g.word("a", "b", "c", "d")] = g.word("1", "2")
	}
	return out
}

func (g generator) inner() any {
	out := map[string]any{}
	if g.maybe(.5) {
		out["a"] = g.word("1", "2")
	}
	if g.maybe(.3) {
		out["b"] = g.word("1", "2")
	}
	if g.maybe(.4) {
		deep := map[string]any{}
		if g.maybe(.6) {
			deep["x"] = g.word("1", "2")
		}
		if g.maybe(.4) {
			deep["y"] = g.word("1", "2")
		}
		out["deep"] = deep
	}
	return out
}

func (g generator) free(depth int) any {
	switch n := g.Intn(7); {
	case n == 0:
		return g.strings()
	case n == 1:
		return g.Intn(3)
	case n == 2:
		return g.word("x", "y")
	case n == 3 && g.maybe(.3):
		return nil
	case depth > 2:
		return true
	default:
		out := map[string]any{}
		for i := g.Intn(3); i > 0; i-- {
			out[g.word("p", "q", "r")] = g.free(depth + 1)
		}
		return out
	}
}

func (g generator) spec() map[string]any {
	out := map[string]any{}
	add := func(p float64, name string, value func() any) {
		if g.maybe(p) {
			out[name] = value()
			if g.maybe(.03) {
				out[name] = nil
			}
		}
	}
	add(.4, "text", func() any { return g.word("one", "two", "three") })
	add(.3, "number", func() any { return g.Intn(3) })
	add(.3, "pieces", func() any { return g.strings() })
	add(.4, "tags", func() any { return g.strings() })
	add(.5, "items", func() any {
		list := []any{}
		seen := map[string]bool{}
		for i := g.Intn(5); i > 0; i-- {
			name := g.word("a", "b", "c", "d", "e")
			if seen[name] && !g.duplicates {
				continue
			}
			seen[name] = true
			item := map[string]any{"name": name}
			if g.maybe(.5) {
				item["value"] = g.Intn(3)
			}
			if g.maybe(.3) {
				item["inner"] = g.inner()
			}
			if g.maybe(.3) {
				item["tags"] = g.strings()
			}
			list = append(list, item)
		}
		return list
	})
	add(.4, "ports", func() any {
		list := []any{}
		seen := map[string]bool{}
		for i := g.Intn(4); i > 0; i-- {
			port := []int{9, 80, 443}[g.Intn(3)]
			protocol := g.word("", "TCP", "UDP")
			key := fmt.Sprint(port, protocol == "UDP")
			if seen[key] {
				continue
			}
			seen[key] = true
			item := map[string]any{"port": port}
			if protocol != "" {
				item["protocol"] = protocol
			}
			if g.maybe(.5) {
				item["name"] = g.word("n", "m")
			}
			list = append(list, item)
		}
		return list
	})
	add(.4, "labels", func() any { return g.table() })
	add(.3, "groups", func() any {
		out := map[string]any{}
		for i := g.Intn(3); i > 0; i-- {
			out[g.word("g", "h")] = g.inner()
		}
		return out
	})
	add(.3, "whole", func() any { return g.table() })
	add(.4, "inner", func() any { return g.inner() })
	add(.4, "free", func() any { return g.free(0) })
	return out
}

// owner is one manager's entry.
type owner struct {
	Apply  bool            `json:"apply"`
	Fields json.RawMessage `json:"fields"`
}

type conflict struct {
	Manager string `json:"manager"`
	Path    string `json:"path"`
}

type step struct {
	Live      any              `json:"live"`
	Owners    map[string]owner `json:"owners"`
	Apply     bool             `json:"apply"`
	Force     bool             `json:"force"`
	Manager   string           `json:"manager"`
	Object    any              `json:"object"`
	Conflicts []conflict       `json:"conflicts"`
	Result    any              `json:"result"`
	After     map[string]owner `json:"after"`
}

func owners(managers fieldpath.ManagedFields) map[string]owner {
	out := map[string]owner{}
	for name, set := range managers {
		text, err := set.Set().ToJSON()
		check(err)
		out[name] = owner{set.Applied(), text}
	}
	return out
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func applyCases(count int, seed int64) {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	parser, err := typed.NewParser(schemaYAML)
	check(err)
	root := parser.Type("root")
	random := rand.New(rand.NewSource(seed))
	for made := 0; made < count; {
		live, err := root.FromUnstructured(map[string]any{})
		check(err)
		first := true
		managers := fieldpath.ManagedFields{}
		for steps := 2 + random.Intn(7); steps > 0 && made < count; steps-- {
			g := generator{random, false}
			s := step{Live: live.AsValue().Unstructured(), Owners: owners(managers)}
			if first {
				s.Live = nil
			}
			s.Apply = g.maybe(.7)
			updater := (&merge.UpdaterBuilder{Converter: same{}, ReturnInputOnNoop: true}).BuildUpdater()
			copied := managers.Copy()
			var result *typed.TypedValue
			if s.Apply {
				s.Manager = g.word("ann", "ben", "cat")
				s.Force = g.maybe(.5)
				object := map[string]any{"spec": g.spec()}
				s.Object = object
				applied, err := root.FromUnstructured(object)
				check(err)
				var after fieldpath.ManagedFields
				result, after, err = updater.Apply(live, applied, "v1", copied, s.Manager, s.Force)
				if conflicts, ok := err.(merge.Conflicts); ok {
					for _, c := range conflicts {
						s.Conflicts = append(s.Conflicts, conflict{c.Manager, c.Path.String()})
					}
					sort.Slice(s.Conflicts, func(i, j int) bool {
						return fmt.Sprint(s.Conflicts[i]) < fmt.Sprint(s.Conflicts[j])
					})
					check(encoder.Encode(s))
					made++
					continue
				}
				check(err)
				managers = after
			} else {
				s.Manager = g.word("dan", "eve")
				g.duplicates = g.maybe(.2)
				spec := g.spec()
				// Mostly a change of some fields, not a new object.
				if old, ok := live.AsValue().Unstructured().(map[string]any)["spec"].(map[string]any); ok && g.maybe(.8) {
					for key, value := range old {
						if g.maybe(.7) {
							spec[key] = value
						}
					}
				}
				s.Object = map[string]any{"spec": spec}
				updated, err := root.FromUnstructured(s.Object, typed.AllowDuplicates)
				check(err)
				result, managers, err = updater.Update(live, updated, "v1", copied, s.Manager)
				check(err)
			}
			s.Result = result.AsValue().Unstructured()
			s.After = owners(managers)
			check(encoder.Encode(s))
			made++
			// The object as it comes back from the store.
			text, err := json.Marshal(s.Result)
			check(err)
			var stored any
			check(json.Unmarshal(text, &stored))
			live, err = root.FromUnstructured(stored, typed.AllowDuplicates)
			check(err)
			first = false
			if result, ok := s.Result.(map[string]any); len(managers) == 0 || !ok || result["spec"] == nil {
				break
			}
		}
	}
}

// Spec has what strategic merge patches need: lists merged by a key, merged scalars, replaced lists, retained keys.
type Spec struct {
	Text   string            `json:"text"`
	Number int               `json:"number"`
	Pieces []string          `json:"pieces"`
	Tags   []string          `json:"tags" patchStrategy:"merge"`
	Items  []Item            `json:"items" patchStrategy:"merge" patchMergeKey:"name"`
	Labels map[string]string `json:"labels"`
	Inner  Inner             `json:"inner" patchStrategy:"retainKeys"`
	Whole  map[string]string `json:"whole" patchStrategy:"replace"`
}

// Item is one of a list.
type Item struct {
	Name  string   `json:"name"`
	Value int      `json:"value"`
	Inner Inner    `json:"inner"`
	Tags  []string `json:"tags" patchStrategy:"merge"`
}

// Inner is a map in a map.
type Inner struct {
	A    string `json:"a"`
	B    string `json:"b"`
	Deep Deep   `json:"deep"`
}

// Deep is one more.
type Deep struct {
	X string `json:"x"`
	Y string `json:"y"`
}

// Root is the object.
type Root struct {
	Spec Spec `json:"spec"`
}

type strategicCase struct {
	Original json.RawMessage `json:"original"`
	Modified json.RawMessage `json:"modified"`
	Current  json.RawMessage `json:"current"`
	Patch    json.RawMessage `json:"patch"`
	Result   json.RawMessage `json:"result"`
}

func strategicCases(count int, seed int64) {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	g := generator{rand.New(rand.NewSource(seed)), false}
	object := func() []byte {
		spec := g.spec()
		for key, value := range spec {
			if value == nil {
				delete(spec, key)
			}
		}
		delete(spec, "ports")
		delete(spec, "groups")
		delete(spec, "free")
		text, err := json.Marshal(map[string]any{"spec": spec})
		check(err)
		return text
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(Root{})
	check(err)
	for made := 0; made < count; made++ {
		c := strategicCase{Original: object(), Modified: object(), Current: object()}
		if g.maybe(.5) {
			c.Current = c.Original
		}
		c.Patch, err = strategicpatch.CreateThreeWayMergePatch(c.Original, c.Modified, c.Current, meta, true)
		check(err)
		c.Result, err = strategicpatch.StrategicMergePatchUsingLookupPatchMeta(c.Current, c.Patch, meta)
		if err != nil {
			continue
		}
		check(encoder.Encode(c))
	}
}

func main() {
	count, err := strconv.Atoi(os.Args[2])
	check(err)
	seed, err := strconv.ParseInt(os.Args[3], 10, 64)
	check(err)
	switch os.Args[1] {
	case "apply":
		applyCases(count, seed)
	case "strategic":
		strategicCases(count, seed)
	}
}
