"""What a person does in /docs."""

from playwright.sync_api import Locator, Page, expect


def authorize(page: Page, token: str) -> None:
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("auth-bearer-value").fill(token)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()


def open_operation(page: Page, tag: str, operation_id: str) -> Locator:
    """Open an operation to try it out; after a reload, the last one is open."""
    group = page.locator(f'h3[data-tag="{tag}"]')
    expect(group).to_be_visible()
    if group.get_attribute("data-is-open") == "false":
        group.get_by_role("button").click()
    operation = page.locator(f'[id="operations-{tag.replace(" ", "_")}-{operation_id}"]')
    if operation.locator(".opblock-summary-control[aria-expanded=false]").count():
        operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    return operation


def execute(operation: Locator) -> tuple[str, str]:
    """Execute it, and give the status and the body of the answer."""
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table tbody")
    expect(answer).to_be_visible()
    body = answer.locator(".highlight-code")
    status = answer.locator(".response-col_status").inner_text().strip()
    return status, body.inner_text() if body.count() else ""
