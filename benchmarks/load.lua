-- Sends the requests of a file one after the other, from the first again after the last.
-- Arguments: the file; and, where the tasks that are created are to be noted, a file for them.

function setup(thread)
  the_thread = thread -- wrk is told to run one
end

function init(arguments)
  sent, requests = 0, {}
  local file = io.open(arguments[1], "rb")
  for request in file:read("*a"):gmatch("[^\1]+") do
    requests[#requests + 1] = request
  end
  file:close()
  if arguments[2] then
    local created = io.open(arguments[2], "a")
    -- The title names the owner, so that any server's answer tells who may delete the task.
    function response(status, headers, body)
      local id = body:match('"id":%s*"?([%w-]+)')
      local owner = body:match('"title":%s*"[^"]-(%d+)"')
      if id and owner then
        created:write(id, " ", owner, "\n")
      end
    end
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"sent": %d, "completed": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f, "errors": %d}\n',
    the_thread:get("sent") - 1, -- wrk has asked for one only to look at it
    summary.requests,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
