-- Every request with another path, another field and another order of them: nothing a cache of heads could know.
local count = 0

request = function()
    count = count + 1
    local headers = {
        ["User-Agent"] = "curl/8.14.1",
        ["Accept"] = "*/*",
        ["X-Request-Id"] = "request-" .. count,
        ["X-Field-" .. (count % 97)] = tostring(count),
    }
    return wrk.format("GET", "/small/" .. count .. "?page=" .. count, headers)
end
