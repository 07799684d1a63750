// A report as this package sees it.
//
// Invariant: nothing here changes the report.

package show

import "ringnbd/bench/measure"

// report is a measured report with what is printed of it.
type report struct{ *measure.Report }
