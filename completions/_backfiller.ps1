
using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'backfiller' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'backfiller'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'backfiller' {
            [CompletionResult]::new('-d', '-d', [CompletionResultType]::ParameterName, 'The archive to fill')
            [CompletionResult]::new('--base-dir', '--base-dir', [CompletionResultType]::ParameterName, 'The archive to fill')
            [CompletionResult]::new('--files-from', '--files-from', [CompletionResultType]::ParameterName, 'Fetch exactly the files listed in this file, or on standard input (-)')
            [CompletionResult]::new('-j', '-j', [CompletionResultType]::ParameterName, 'Concurrent requests per node')
            [CompletionResult]::new('--jobs', '--jobs', [CompletionResultType]::ParameterName, 'Concurrent requests per node')
            [CompletionResult]::new('--order', '--order', [CompletionResultType]::ParameterName, 'The order in which to fetch the segments of an hour')
            [CompletionResult]::new('--recent-cutoff', '--recent-cutoff', [CompletionResultType]::ParameterName, 'Leave segments that started less than this ago to the downloader')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'How long a node may stay silent')
            [CompletionResult]::new('--retries', '--retries', [CompletionResultType]::ParameterName, 'How often to retry a request that failed temporarily')
            [CompletionResult]::new('--limit-rate', '--limit-rate', [CompletionResultType]::ParameterName, 'Fetch at most this many bytes per second, from all nodes together')
            [CompletionResult]::new('--max-segment-size', '--max-segment-size', [CompletionResultType]::ParameterName, 'Refuse segments larger than this')
            [CompletionResult]::new('--localhost', '--localhost', [CompletionResultType]::ParameterName, 'The name of the node that is this machine; it is skipped')
            [CompletionResult]::new('--extras', '--extras', [CompletionResultType]::ParameterName, 'Also fill these directories of extra files, separated by commas')
            [CompletionResult]::new('--delete-older-than', '--delete-older-than', [CompletionResultType]::ParameterName, 'After the pass, delete the segments of hours that ended longer ago than this')
            [CompletionResult]::new('--min-free', '--min-free', [CompletionResultType]::ParameterName, 'End the pass before less than this is free on the archive''s disk')
            [CompletionResult]::new('--max-duration', '--max-duration', [CompletionResultType]::ParameterName, 'End the pass in order once it has taken this long')
            [CompletionResult]::new('--jitter', '--jitter', [CompletionResultType]::ParameterName, 'Wait for a random time of up to this long before the pass')
            [CompletionResult]::new('--metrics-file', '--metrics-file', [CompletionResultType]::ParameterName, 'Write metrics for Prometheus to this file')
            [CompletionResult]::new('--report', '--report', [CompletionResultType]::ParameterName, 'Write an HTML report of the pass to this file')
            [CompletionResult]::new('--progress', '--progress', [CompletionResultType]::ParameterName, 'Show a progress bar: auto (on a terminal), always or never')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print a status line at this interval, where there is no progress bar')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour messages and maps: auto (on a terminal), always or never')
            [CompletionResult]::new('--generate', '--generate', [CompletionResultType]::ParameterName, 'Print the manual page or a shell''s completions, and exit')
            [CompletionResult]::new('--from0', '--from0', [CompletionResultType]::ParameterName, 'The paths in the list of --files-from end with NUL, as printed by --print0')
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'Fetch nothing; print what would be fetched')
            [CompletionResult]::new('--dry-run', '--dry-run', [CompletionResultType]::ParameterName, 'Fetch nothing; print what would be fetched')
            [CompletionResult]::new('--verify', '--verify', [CompletionResultType]::ParameterName, 'Also check the selected segments that are here, and repair the corrupt ones')
            [CompletionResult]::new('--lock', '--lock', [CompletionResultType]::ParameterName, 'If another pass with --lock is running on this archive, exit with 75 at once')
            [CompletionResult]::new('--no-fsync', '--no-fsync', [CompletionResultType]::ParameterName, 'Don''t flush to disk: faster, but a power cut may corrupt segments just written')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'Print the path of each segment once it has landed')
            [CompletionResult]::new('--print', '--print', [CompletionResultType]::ParameterName, 'Print the path of each segment once it has landed')
            [CompletionResult]::new('-0', '-0', [CompletionResultType]::ParameterName, 'Like --print, but end each path with NUL')
            [CompletionResult]::new('--print0', '--print0', [CompletionResultType]::ParameterName, 'Like --print, but end each path with NUL')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON Lines: one event per line as it happens, then a summary')
            [CompletionResult]::new('--coverage', '--coverage', [CompletionResultType]::ParameterName, 'After the pass, print a map of the selected hours: what is here and what is missing')
            [CompletionResult]::new('--compare', '--compare', [CompletionResultType]::ParameterName, 'After the pass, print a table of who has what: the segments of each hour, here and at each node')
            [CompletionResult]::new('--fail-on-holes', '--fail-on-holes', [CompletionResultType]::ParameterName, 'Exit with 3 if holes remain in the selected hours')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print only errors')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print only errors')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Print what is done and what is skipped, and why; twice: debug messages too')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Print what is done and what is skipped, and why; twice: debug messages too')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
